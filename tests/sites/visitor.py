"""What a user would write: reads a page of the tree, and follows its links."""


async def parse(page, target):
    yield {"title": await page.title(), "depth": target.depth}
    for href in await page.locator("a").evaluate_all("links => links.map(link => link.href)"):
        yield href
