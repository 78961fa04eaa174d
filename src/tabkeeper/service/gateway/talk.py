"""One connection's conversation: what each side said is read as far as needed, and changed where it must be.

Commands are read whole, and what was judged is what is sent. Of what the browser says only attachments and the sizes of
what pages loaded are read; the rest passes unread, so a screenshot costs no more than its copy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tabkeeper.service.gateway.custody import Custody, Target

_FIRST_OF_OURS = 2_000_000_000
"""Ids of the commands that are ours; clients count from one."""
_OURS = b'"id":20000'
_SMALL = 8192
"""Only messages of this size or less are looked into, when the browser says them."""
_LARGE = 1 << 20
"""Commands longer than this are not read whole."""
_LONG = 4096
"""Commands longer than this are not read whole if it is plain without that what they are for."""
_METHOD = re.compile(r'"method"\s*:\s*"([A-Za-z]+\.[A-Za-z]+)"')
_SESSION = re.compile(r'"sessionId"\s*:\s*"([0-9A-Za-z-]+)"')
_NETWORK = b'{"method":"Network.'
_OF_BYTES = (b'{"method":"Network.dataReceived"', b'{"method":"Network.loadingFinished"')
_ITS_SESSION = re.compile(rb'\},"sessionId":"([0-9A-Za-z-]+)"\}\Z')
"""How an event ends. A page's own words could not: within them a quotation mark has a backslash."""
_CARRIERS = frozenset(
    {
        "DOM.setOuterHTML",
        "Fetch.fulfillRequest",
        "Input.insertText",
        "Page.addScriptToEvaluateOnNewDocument",
        "Page.setDocumentContent",
        "Runtime.callFunctionOn",
        "Runtime.compileScript",
        "Runtime.evaluate",
    }
)
"""Commands that can be long for good reason: they carry a file, a page or a script."""
_METERED = frozenset({"page", "iframe"})


@dataclass(slots=True)
class Step:
    """What follows from a command of the client."""

    to_browser: list[str] = field(default_factory=list)
    to_client: str | None = None
    """Our answer, if the command is not the browser's business."""
    ends: bool = False
    """The client gives its lease back."""
    success: bool = True
    reason: str | None = None


class Talk:
    """One connection.

    Args:
        custody: what is known of the lease.
        meter: told of the events that say how much pages received.
        about: what ``Tabkeeper.lease`` answers.
    """

    def __init__(
        self,
        custody: Custody,
        meter: Callable[[str, dict[str, Any]], None],
        about: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._custody = custody
        self._meter = meter
        self._about = about
        self._targets: dict[str, Target] = {}
        self._counting: dict[str, str] = {}
        """Which session counts a target's bytes: one, however many are attached to it."""
        self._listens: set[str] = set()
        """Sessions whose network events the client asked for."""
        self._ours: set[int] = set()
        self._making: set[int] = set()
        """Ids of commands that make a context."""
        self._next = _FIRST_OF_OURS

    # ── from the client ────────────────────────────────────────────────────────────────────────────────────────────

    def said(self, text: str) -> Step:
        """Read a command and say what to do about it."""
        self._custody.sent += len(text)
        if len(text) > _LONG:
            if self._is_plain(text):
                return Step(to_browser=[text])
            if len(text) > _LARGE:
                self._custody.spend("a long message that cannot be judged")
                return Step(to_browser=[text])
        try:
            command = json.loads(text)
        except (ValueError, RecursionError):
            self._custody.spend("a message that cannot be read")
            return Step(to_browser=[text])
        if not isinstance(command, dict):
            return Step(to_browser=[text])
        method, params = command.get("method"), command.get("params")
        session = command.get("sessionId")
        if not isinstance(method, str) or not isinstance(params, dict | None):
            return Step(to_browser=[text])
        params = params or {}
        if method.startswith("Tabkeeper."):
            return self._asked_us(command, method, params)
        if method == "Browser.close":
            return Step(to_client=_answer(command, {}), ends=True)
        target = self._targets.get(session) if isinstance(session, str) else None
        self._custody.judge(method, params, target, known=session is None or target is not None)
        step = Step()
        if method == "Target.createBrowserContext":
            # Undone by us at the end of the lease, not of the connection: it may come back.
            params.pop("disposeOnDetach", None)
            if type(number := command.get("id")) is int:
                self._making.add(number)
        if method == "Target.disposeBrowserContext":
            self._custody.own.discard(str(params.get("browserContextId")))
        try:
            step.to_browser.append(json.dumps(command, separators=(",", ":"), allow_nan=False))
        except (ValueError, RecursionError):
            self._custody.spend("a message that cannot be read")
            step.to_browser.append(text)
        if isinstance(session, str):
            if method == "Network.enable":
                self._listens.add(session)
            elif method == "Network.disable" and session in self._counting.values():
                self._listens.discard(session)
                step.to_browser.append(self._our("Network.enable", session))
        return step

    def _is_plain(self, text: str) -> bool:
        """Judge a file or a script in one command, if what it is for can be told without reading it whole."""
        methods, sessions = _METHOD.findall(text), _SESSION.findall(text)
        if not (len(methods) == len(sessions) == 1 and methods[0] in _CARRIERS):
            return False
        if text.count('"method"') > 1 or text.count('"sessionId"') > 1 or "\\u00" in text:
            return False  # a second one may be written so that only the browser reads it as such
        target = self._targets.get(sessions[0])
        self._custody.judge(methods[0], {}, target, known=target is not None)
        return True

    def _asked_us(self, command: dict[str, Any], method: str, params: dict[str, Any]) -> Step:
        if method == "Tabkeeper.lease":
            return Step(to_client=_answer(command, self._about()))
        if method == "Tabkeeper.release":
            success, reason = params.get("success", True), params.get("reason")
            if type(success) is bool and (reason is None or (isinstance(reason, str) and not success)):
                return Step(
                    to_client=_answer(command, {}), ends=True, success=success, reason=reason and reason[:500]
                )
            return Step(to_client=_refusal(command, -32602, "success is true or false; a reason needs false"))
        return Step(to_client=_refusal(command, -32601, f"'{method}' wasn't found"))

    def _our(self, method: str, session: str) -> str:
        number, self._next = self._next, self._next + 1
        self._ours.add(number)
        return json.dumps({"id": number, "method": method, "sessionId": session}, separators=(",", ":"))

    # ── from the browser ───────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, message: bytes) -> tuple[bool, str | None]:
        """Read what the browser says: whether it is for the client, and a command of ours that follows from it."""
        self._custody.received += len(message)
        if len(message) > _SMALL:
            head = message[:64]
            if b'"Target.attachedToTarget"' not in head and b'"Network.' not in head:
                return True, None
        elif message.startswith(_NETWORK):
            if self._is_only_for_client(message):
                return True, None
        elif not (
            b'"Network.' in message
            or b'"Target.attach' in message
            or b'"Target.detach' in message
            or (self._ours and _OURS in message)
            or (self._making and b'"browserContextId"' in message)
        ):
            return True, None
        try:
            said = json.loads(message)
        except (ValueError, RecursionError):
            return True, None
        if not isinstance(said, dict):
            return True, None
        number, method, params = said.get("id"), said.get("method"), said.get("params")
        if type(number) is int:
            return self._heard_answer(number, said.get("result")), None
        if not isinstance(method, str) or not isinstance(params, dict):
            return True, None
        if method == "Target.attachedToTarget":
            return True, self._attached(params)
        if method == "Target.detachedFromTarget":
            self._detached(str(params.get("sessionId")))
            return True, None
        if method.startswith("Network."):
            return self._network(method, params, said.get("sessionId")), None
        return True, None

    def _is_only_for_client(self, message: bytes) -> bool:
        """Whether an event of the network says nothing of bytes, and the client asked for it."""
        if message.startswith(_OF_BYTES):
            return False
        found = _ITS_SESSION.search(message, max(0, len(message) - 80))
        return found is not None and found[1].decode() in self._listens

    def _heard_answer(self, number: int, result: object) -> bool:
        if number in self._ours:
            self._ours.discard(number)
            return False
        if number in self._making:
            self._making.discard(number)
            if isinstance(result, dict) and isinstance(result.get("browserContextId"), str):
                self._custody.own.add(result["browserContextId"])
        return True

    def _attached(self, params: dict[str, Any]) -> str | None:
        session, info = params.get("sessionId"), params.get("targetInfo")
        if not isinstance(session, str) or not isinstance(info, dict):
            return None
        context = info.get("browserContextId")
        target = Target(
            str(info.get("targetId", "")),
            str(info.get("type", "")),
            context if isinstance(context, str) else None,
        )
        self._targets[session] = target
        if target.kind not in _METERED or target.id in self._counting:
            return None
        self._counting[target.id] = session
        return self._our("Network.enable", session)

    def _detached(self, session: str) -> None:
        target = self._targets.pop(session, None)
        self._listens.discard(session)
        if target is not None and self._counting.get(target.id) == session:
            # Another session of the page, if there is one, is not asked to go on: its client has left the page.
            del self._counting[target.id]

    def _network(self, method: str, params: dict[str, Any], session: object) -> bool:
        target = self._targets.get(session) if isinstance(session, str) else None
        if target is None:
            return True
        if self._counting.get(target.id) == session:
            self._meter(method, params)
        return target.kind not in _METERED or session in self._listens


def _answer(command: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    return json.dumps({"id": command.get("id"), "result": result} | _whose(command))


def _refusal(command: Mapping[str, Any], code: int, said: str) -> str:
    return json.dumps({"id": command.get("id"), "error": {"code": code, "message": said}} | _whose(command))


def _whose(command: Mapping[str, Any]) -> dict[str, Any]:
    return {"sessionId": command["sessionId"]} if "sessionId" in command else {}
