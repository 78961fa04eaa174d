"""What a visitor's function may be and yield, and by which form pages are told from each other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import BaseModel

from tabkeeper.sites.registry import SiteRegistry
from tabkeeper.sites.target import Target, address, collect

SITES = SiteRegistry({"shop.example": {}})
TARGET = Target(url="https://shop.example/list", site="shop.example", status=200, depth=0, attempt=1, run="r")


@dataclass
class Book:
    title: str


class Film(BaseModel):
    title: str


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://SHOP.example:443/a?b=1#c", "https://shop.example/a?b=1"),
        ("http://shop.example", "http://shop.example/"),
        ("/x", "https://shop.example/x"),
        ("mailto:me@shop.example", ""),
        ("javascript:void(0)", ""),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://shop.example:port/", ""),
    ],
)
def test_a_page_has_one_address(url, same):
    assert address(url, TARGET.url) == same


async def test_it_may_yield_items_of_many_kinds_and_addresses_and_what_is_elsewhere_is_counted():
    async def parse(page, target):
        yield {"title": "a"}
        yield Book("b")
        yield Film(title="c")
        yield "/2"
        yield "https://other.example/"

    found = await collect(parse, None, TARGET, SITES)
    assert found.items == ['{"title": "a"}', '{"title": "b"}', '{"title":"c"}']
    assert found.pages == [("https://shop.example/2", "shop.example")]
    assert found.elsewhere == 1


async def test_it_may_return_one_thing_a_list_or_nothing():
    async def one(page, target):
        return {"title": "a"}

    async def many(page, target):
        return [{"title": "a"}, "/2"]

    async def nothing(page, target):
        return None

    assert (await collect(one, None, TARGET, SITES)).items == ['{"title": "a"}']
    assert len((await collect(many, None, TARGET, SITES)).pages) == 1
    assert (await collect(nothing, None, TARGET, SITES)).items == []


async def test_what_is_no_item_and_what_is_no_async_function_are_errors_that_say_so():
    async def number(page, target):
        yield 7

    def plain(page, target):
        return {"title": "a"}

    with pytest.raises(TypeError, match="int '7' is neither an item"):
        await collect(number, None, TARGET, SITES)
    with pytest.raises(TypeError, match="async def parse"):
        await collect(plain, None, TARGET, SITES)
