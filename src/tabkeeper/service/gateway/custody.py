"""What a client did to its session: everything may be done, but only what is known can be undone.

A client that keeps to browser contexts of its own leaves a browser that is as good as new once those are closed.
Whatever else it does is carried out, too; it is remembered as the reason for closing the session after the lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BROWSER_WIDE = frozenset(
    {
        "Browser.close",  # ours to answer
        "Browser.getVersion",
        "Browser.setDownloadBehavior",  # what is set for the default context is set back at the end
        "Target.activateTarget",
        "Target.attachToBrowserTarget",
        "Target.attachToTarget",
        "Target.autoAttachRelated",
        "Target.closeTarget",
        "Target.createBrowserContext",
        "Target.detachFromTarget",
        "Target.getBrowserContexts",
        "Target.getTargetInfo",
        "Target.getTargets",
        "Target.setAutoAttach",
        "Target.setDiscoverTargets",
        "Target.setRemoteLocations",
        "SystemInfo.getInfo",
        "Schema.getDomains",
    }
)
_OF_A_CONTEXT = frozenset(
    {
        "Browser.cancelDownload",
        "Browser.grantPermissions",
        "Browser.resetPermissions",
        "Browser.setPermission",
        "Storage.clearCookies",
        "Storage.getCookies",
        "Storage.setCookies",
        "Target.createTarget",
        "Target.disposeBrowserContext",
    }
)
"""Harmless in a context of the client's own; without one they are about the browser's first context."""
_PAGE_DOMAINS = (
    "Accessibility Animation Audits CSS CacheStorage Console DOM DOMDebugger DOMSnapshot DOMStorage Debugger "
    "DeviceOrientation Emulation EventBreakpoints Fetch HeadlessExperimental HeapProfiler IO IndexedDB Input Inspector "
    "LayerTree Log Media Network Overlay Page Performance PerformanceTimeline Preload Profiler Runtime Security "
    "ServiceWorker Storage WebAudio WebAuthn WebMCP"
)
_OF_A_PAGE = frozenset(_PAGE_DOMAINS.split())
"""Domains that reach no further than the page, or its context."""
_WITH_A_PAGE = frozenset(
    {
        "Browser.getVersion",
        "Browser.getWindowBounds",
        "Browser.getWindowForTarget",
        "Browser.setWindowBounds",
        "Target.detachFromTarget",
        "Target.getTargetInfo",
        "Target.sendMessageToTarget",
        "Target.setAutoAttach",
    }
)
_LOOKS = frozenset(
    {
        "Emulation.setEmulatedMedia",
        "Emulation.setFocusEmulationEnabled",
        "Network.setCacheDisabled",
        "Page.addScriptToEvaluateOnNewDocument",
        "Page.createIsolatedWorld",
        "Page.getFrameTree",
        "Page.setInterceptFileChooserDialog",
        "Page.setLifecycleEventsEnabled",
        "Runtime.addBinding",
        "Runtime.runIfWaitingForDebugger",
        "Target.detachFromTarget",
        "Target.getTargetInfo",
        "Target.setAutoAttach",
    }
)
"""What clients do to every page that they find, and what ends when they detach."""
_INNER_PAGES = ("chrome:", "devtools:", "chrome-extension:", "chrome-untrusted:", "view-source:chrome:")
_NAVIGATES = frozenset({"Page.navigate", "Target.createTarget"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a CDP session is attached to."""

    id: str
    kind: str
    context: str | None


@dataclass(slots=True)
class Custody:
    """What is known of one lease's doings, whichever of its connections did them."""

    own: set[str] = field(default_factory=set)
    """Contexts that it made."""
    at_home: bool = False
    """The browser's first context is its own, too."""
    spent: str = ""
    """Why its session cannot be used again; empty as long as it can."""
    sent: int = 0
    """Bytes from clients to the browser."""
    received: int = 0
    """Bytes from the browser to clients."""

    def spend(self, why: str) -> None:
        """Remember the first thing that cannot be undone."""
        self.spent = self.spent or why

    def judge(self, method: str, params: Mapping[str, Any], target: Target | None, *, known: bool) -> None:
        """Look at a command.

        Args:
            method: such as ``Page.navigate``.
            params: its parameters.
            target: what the CDP session that it is for is attached to; None for the browser itself.
            known: whether that session is known at all.
        """
        why = self._why_spent(method, params, target, known=known)
        if why:
            self.spend(why)

    def _why_spent(
        self, method: str, params: Mapping[str, Any], target: Target | None, *, known: bool
    ) -> str:
        if not known:
            return f"{method} for an unknown session"
        context = params.get("browserContextId")
        if context is not None and not (isinstance(context, str) and context in self.own):
            return f"{method} in a context that is not its own"
        if method in _NAVIGATES and str(params.get("url", "")).strip().lower().startswith(_INNER_PAGES):
            return "a page of the browser's own was opened"
        if target is None or target.kind == "browser":
            return self._why_of_browser(method, context)
        if target.kind == "tab" and method in _WITH_A_PAGE:
            return ""
        if _only_looks(method):
            return ""
        if target.context not in self.own and not self.at_home:
            return f"{method} in the default context"
        if method in _WITH_A_PAGE or method.partition(".")[0] in _OF_A_PAGE:
            return ""
        return f"{method} was used"

    def _why_of_browser(self, method: str, context: object) -> str:
        if method in _OF_A_CONTEXT:
            return "" if context is not None or self.at_home else f"{method} in the default context"
        return "" if method in _BROWSER_WIDE else f"{method} was used"


def _only_looks(method: str) -> bool:
    return method in _LOOKS or method.endswith((".enable", ".disable"))
