"""Looking for what leases left in a browser: targets, contexts, cookies of its default context. It only looks.

What a lease may use, and a later one could find, is told by the browser itself over CDP; that nothing is found is what
makes a session fit for the next tenant.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from playwright.async_api import BrowserContext, CDPSession, Page
from playwright.async_api import Error as PlaywrightError

_LIVE_KINDS = frozenset({"page", "iframe", "service_worker", "shared_worker", "worker", "webview"})
"""Kinds of targets that run somebody's code; the browser's own are of other kinds."""
_OWN_SCHEMES = ("chrome-extension://", "chrome://", "devtools://")


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a browser has: its contexts, what runs in it, and the cookies of its default context."""

    contexts: frozenset[str]
    targets: frozenset[str]
    cookies: frozenset[tuple[str, ...]]

    def beyond(self, before: Belongings) -> list[str]:
        """Say in a few words what is here and was not before."""
        found = []
        for name, now, then in (
            ("context", self.contexts, before.contexts),
            ("target", self.targets, before.targets),
            ("cookie in the default context", self.cookies, before.cookies),
        ):
            new = len(now - then)
            if new:
                found.append(f"{new} {name}{'s' if new != 1 else ''}")
        return found


async def belongings(cdp: CDPSession, *, without: Collection[str] = ()) -> Belongings:
    """Look at everything in a browser that is one session's alone.

    Args:
        cdp: a session of the browser itself, not of a page.
        without: ids of contexts that are known and stay; what runs in them does not count.

    Raises:
        playwright.async_api.Error: the browser does not answer.
    """
    contexts = (await cdp.send("Target.getBrowserContexts"))["browserContextIds"]
    targets = (await cdp.send("Target.getTargets"))["targetInfos"]
    cookies = (await cdp.send("Storage.getCookies"))["cookies"]
    return Belongings(
        contexts=frozenset(contexts) - frozenset(without),
        targets=frozenset(
            t["targetId"] for t in targets if _runs(t) and t.get("browserContextId") not in without
        ),
        cookies=frozenset((c["name"], c["domain"], c["path"], c["value"]) for c in cookies),
    )


def _runs(target: dict[str, Any]) -> bool:
    return target["type"] in _LIVE_KINDS and not str(target["url"]).startswith(_OWN_SCHEMES)


async def remaining(cdp: CDPSession, contexts: Collection[str]) -> list[str]:
    """Say which of these contexts, or of what ran in them, are still in a browser that others use, too."""
    wanted = frozenset(contexts)
    if not wanted:
        return []
    left = wanted & frozenset((await cdp.send("Target.getBrowserContexts"))["browserContextIds"])
    targets = (await cdp.send("Target.getTargets"))["targetInfos"]
    alive = [t for t in targets if t.get("browserContextId") in wanted]
    return [f"context {which}" for which in sorted(left)] + [f"{t['type']} {t['targetId']}" for t in alive]


async def context_id(context: BrowserContext) -> str | None:
    """Return the browser's own id of a context; None if it has no page, and so nothing that runs."""
    for page in context.pages:
        found = await _id_of(page)
        if found is not None:
            return found
    return None


async def _id_of(page: Page) -> str | None:
    try:
        cdp = await page.context.new_cdp_session(page)
        info = (await cdp.send("Target.getTargetInfo"))["targetInfo"]
        await cdp.detach()
    except PlaywrightError:  # it closed meanwhile
        return None
    found = info.get("browserContextId")
    return None if found is None else str(found)
