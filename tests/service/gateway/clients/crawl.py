"""scrapy-playwright as its users have it: one setting names the gateway; says what its spider saw as JSON."""

import json
import sys

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy_playwright.page import PageMethod

GATEWAY, SITE, PAGES = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen: list[dict[str, object]] = []


class Spider(scrapy.Spider):
    name = "story"

    async def start(self):
        for number in range(PAGES):
            yield scrapy.Request(
                f"{SITE}?n={number}",
                meta={
                    "playwright": True,
                    "playwright_context": f"visitor {number % 3}",
                    "playwright_page_methods": {"picture": PageMethod("screenshot")},
                },
                dont_filter=True,
            )

    def parse(self, response):
        picture = response.meta["playwright_page_methods"]["picture"].result
        seen.append({"title": response.css("title::text").get(), "picture": len(picture)})


process = CrawlerProcess(
    {
        "TWISTED_REACTOR": "twisted.internet.asyncioreactor.AsyncioSelectorReactor",
        "DOWNLOAD_HANDLERS": {
            "http": "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler",
            "https": "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler",
        },
        "PLAYWRIGHT_CDP_URL": GATEWAY,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
    }
)
process.crawl(Spider)
process.start()
print(json.dumps(seen))
