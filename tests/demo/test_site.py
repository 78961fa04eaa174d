"""The demo's website: what is on its pages is what tasks expect there."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest

from tabkeeper.demo.site import ARTICLES, ITEMS, Site, headline, item_name, item_price, page, receipt


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


def fetch(url: str, data: bytes | None = None) -> tuple[str, bytes]:
    with urllib.request.urlopen(url, data, timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_it_listens_on_loopback_only(site: Site):
    assert urllib.parse.urlsplit(site.url).hostname == "127.0.0.1"


def test_the_shop_lists_every_item_and_each_has_its_price(site: Site):
    listing = fetch(f"{site.url}/shop")[1].decode()
    for number in range(1, ITEMS + 1):
        assert item_name(number) in listing
        assert f'<p class="price">{item_price(number)}</p>' in fetch(f"{site.url}/shop/{number}")[1].decode()


def test_names_and_headlines_are_told_apart():
    assert len({item_name(n) for n in range(1, ITEMS + 1)}) == ITEMS
    assert len({headline(n) for n in range(1, ARTICLES + 1)}) == ARTICLES


def test_every_link_of_every_page_leads_somewhere():
    paths = ["", "shop", "news", "portal", *(f"shop/{n}" for n in range(1, ITEMS + 1))]
    for path in paths:
        text = page(path)
        assert text is not None
        for target in text.split('<a href="')[1:]:
            assert page(target.partition('"')[0]) is not None


def test_pictures_are_images_with_some_weight(site: Site):
    kind, body = fetch(f"{site.url}/picture/3.png")
    assert kind == "image/png"
    assert body.startswith(b"\x89PNG")
    assert len(body) > 5000


def test_the_portal_answers_a_form_with_a_receipt(site: Site):
    body = fetch(f"{site.url}/portal", b"name=acme7")[1].decode()
    assert receipt("acme7") in body


def test_what_a_visitor_writes_is_never_put_into_a_page_as_markup(site: Site):
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"{site.url}/portal", b"name=%3Cscript%3E")
    assert refused.value.code == 404
    refused.value.close()


@pytest.mark.parametrize("path", ["/shop/0", "/shop/999", "/shop/x", "/news/1/2", "/nothing"])
def test_other_paths_are_not_found(site: Site, path: str):
    with pytest.raises(urllib.error.HTTPError) as missing:
        fetch(site.url + path)
    assert missing.value.code == 404
    missing.value.close()
