"""Browserbase: https://docs.browserbase.com/reference/api. Times are seconds; a session cannot be extended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderCapacityError,
    ProviderError,
    ProviderNotFoundError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import (
    Capabilities,
    Check,
    ProviderTotal,
    ProviderUsage,
    RemoteSession,
    SessionSpec,
)
from tabkeeper.providers.hosted import BOOT_PAUSES, HostedProvider
from tabkeeper.providers.http import Refusal
from tabkeeper.providers.reading import checked_id, moment

_OVER = frozenset({"COMPLETED", "TIMED_OUT", "ERROR"})
"""Every other status, known or not, may cost money: such a session is taken to run."""
_CONCURRENCY = re.compile(r"max concurrent sessions limit \(limit (\d+), currently (\d+)\)")
_OWNER, _LABEL = "tool", "session"
"""Keys of our metadata: who made the session, and its id here."""


class BrowserbaseProvider(HostedProvider):
    """See `HostedProvider`."""

    capabilities = Capabilities(
        list_by_label=True,
        finds_ended=True,
        usage=True,
        own_timeout=True,
        min_seconds=60,
        max_seconds=21600,
        live_view=True,
        regions=True,
        proxies=True,
        own_proxies=frozenset({"http", "https"}),
        concurrency=True,
        outlives_connections=False,
    )
    default_url = "https://api.browserbase.com"
    reserved = frozenset({"userMetadata", "timeout", "keepAlive", "projectId", "region"})
    regions = ("us-west-2", "us-east-1", "eu-central-1", "ap-southeast-1")

    def _headers(self, key: SecretStr) -> Mapping[str, SecretStr]:
        return {"X-BB-API-Key": key}

    def _judge(self, refusal: Refusal) -> ProviderError | None:
        # The same status also stands for too many creates a minute, which time alone heals.
        if refusal.status == 429 and _CONCURRENCY.search(refusal.message):
            return ProviderCapacityError(self.name, refusal.message, retry_after=refusal.retry_after)
        return None

    async def _create(self, spec: SessionSpec) -> RemoteSession:
        answer = await self._api.once("POST", "/v1/sessions", body=self._body(spec))
        session_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(session_id, str) or not session_id:
            raise OutcomeUnknownError(self.name, "a session was created, but the answer does not name it")
        try:
            made = self._read(answer)
            for pause in BOOT_PAUSES:
                if answer.get("status") != "PENDING":
                    break
                await self._sleep(pause)
                answer = {**answer, **await self._fetch(session_id)}
                made = self._read(answer)
            if not made.running or not made.connect_url:
                what = f"ended at once ({answer.get('status')})" if not made.running else "has no address"
                raise ProviderUnavailableError(self.name, f"session {session_id} {what}")
        except ProviderError as error:
            raise await self._useless(session_id, error) from error
        return made

    def _body(self, spec: SessionSpec) -> dict[str, Any]:
        settings = self._settings
        shortest, longest = self.capabilities.min_seconds, self.capabilities.max_seconds
        assert longest is not None
        body: dict[str, Any] = {
            **settings.options,
            **spec.options,
            # Seconds, rounded down: money is held for no more than `max_seconds`.
            "timeout": int(min(max(spec.max_seconds, shortest), longest)),
            "keepAlive": settings.keep_alive,
            "userMetadata": {_OWNER: "tabkeeper", _LABEL: spec.session_id, "platform": spec.platform},
        }
        if settings.project_id is not None:
            body["projectId"] = settings.project_id
        if settings.region is not None:
            body["region"] = settings.region
        if spec.proxy is not None:
            external = {"type": "external", "server": spec.proxy.server}
            if spec.proxy.username:
                external |= {"username": spec.proxy.username, "password": spec.proxy.password}
            body["proxies"] = [external]
        elif settings.proxies:
            body.setdefault("proxies", True)
        return body

    async def _get(self, provider_session_id: str) -> RemoteSession:
        return self._read(await self._fetch(provider_session_id))

    async def _fetch(self, session_id: str) -> dict[str, Any]:
        answer = await self._api.repeat("GET", f"/v1/sessions/{checked_id(self.name, session_id)}")
        if not isinstance(answer, dict):
            raise ProviderUnavailableError(self.name, f"what it says of session {session_id} cannot be read")
        return answer

    async def _running(self) -> Sequence[RemoteSession]:
        # The list has no pages, and without a status it holds the sessions of weeks.
        query = f"user_metadata['{_OWNER}']:'tabkeeper'"
        answers = await asyncio.gather(
            *(
                self._api.repeat("GET", "/v1/sessions", query={"status": status, "q": query})
                for status in ("PENDING", "RUNNING")
            )
        )
        found: dict[str, RemoteSession] = {}
        for answer in answers:
            if not isinstance(answer, list):
                raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
            for one in map(self._read, answer):
                if one.running and one.label is not None:
                    found[one.provider_session_id] = one
        return list(found.values())

    async def _search(self, label: str) -> RemoteSession | None:
        query = {"q": f"user_metadata['{_LABEL}']:'{label}'"}
        answer = await self._api.repeat("GET", "/v1/sessions", query=query)
        if not isinstance(answer, list):
            raise ProviderUnavailableError(self.name, "its list of sessions cannot be read")
        return next((one for one in map(self._read, answer) if one.label == label), None)

    async def _release(self, provider_session_id: str) -> bool:
        body = {"status": "REQUEST_RELEASE"}
        if self._settings.project_id is not None:
            body["projectId"] = self._settings.project_id
        path = f"/v1/sessions/{checked_id(self.name, provider_session_id)}"
        answer = await self._api.repeat("POST", path, body=body)
        return isinstance(answer, dict) and answer.get("status") in _OVER

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:
        """See `Provider.usage`: how long it ran and what went through the proxy; while it runs, no length."""
        answer = await self._fetch(provider_session_id)
        started, ended = moment(answer.get("startedAt")), moment(answer.get("endedAt"))
        seconds = (ended - started).total_seconds() if started and ended else None
        proxied = answer.get("proxyBytes")
        return ProviderUsage(
            seconds=seconds,
            proxy_bytes=proxied if isinstance(proxied, int) else None,
            started_at=started,
            ended_at=ended,
        )

    async def used_so_far(self) -> ProviderTotal | None:
        """See `Counting.used_so_far`: since when its minutes count is not documented."""
        project = self._settings.project_id
        if project is None:
            found = await self._api.repeat("GET", "/v1/projects")
            names = (
                [one.get("id") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
            )
            if len(names) != 1 or not isinstance(names[0], str):
                return None
            project = names[0]
        answer = await self._api.repeat("GET", f"/v1/projects/{checked_id(self.name, project)}/usage")
        minutes = answer.get("browserMinutes") if isinstance(answer, dict) else None
        proxied = answer.get("proxyBytes") if isinstance(answer, dict) else None
        if not isinstance(minutes, int) or not isinstance(proxied, int):
            raise ProviderUnavailableError(self.name, f"what it says of project {project} cannot be read")
        return ProviderTotal(seconds=minutes * 60.0, proxy_bytes=proxied)

    async def live_view(self, provider_session_id: str) -> str:
        """Return an address at which a person can watch the session. Who has it needs no key: a secret.

        Raises:
            ProviderNotFoundError: there is no such session, or it is over.
        """
        answer = await self._api.repeat(
            "GET", f"/v1/sessions/{checked_id(self.name, provider_session_id)}/debug"
        )
        url = answer.get("debuggerFullscreenUrl") if isinstance(answer, dict) else None
        if not isinstance(url, str):
            raise ProviderNotFoundError(self.name, f"session {provider_session_id} cannot be watched")
        return url

    async def _look(self) -> Check:
        project = self._settings.project_id
        found = await self._api.repeat("GET", f"/v1/projects/{project}" if project else "/v1/projects")
        projects = found if isinstance(found, list) else [found]
        if not projects or not all(isinstance(one, dict) for one in projects):
            return Check(name="account", ok=False, detail="the key is valid, but has no project")
        told = ", ".join(
            f"project {one.get('name') or one.get('id')} runs up to {one.get('concurrency', '?')} sessions"
            for one in projects
        )
        limits = [one["concurrency"] for one in projects if isinstance(one.get("concurrency"), int)]
        wanted = self._settings.max_sessions
        advice = ""
        if wanted is not None and limits and wanted > max(limits):
            advice = f"set providers.{self.name}.max_sessions to {max(limits)} at most; more are refused"
        return Check(
            name="account",
            ok=True,
            detail=f"the key is valid; {told}",
            advice=advice,
            concurrency=max(limits, default=None),
        )

    def _read(self, session: object) -> RemoteSession:
        if not isinstance(session, dict) or not isinstance(session.get("id"), str):
            raise ProviderUnavailableError(self.name, "what it says of a session cannot be read")
        metadata = session.get("userMetadata")
        ours = isinstance(metadata, dict) and metadata.get(_OWNER) == "tabkeeper"
        label = metadata.get(_LABEL) if ours and isinstance(metadata, dict) else None
        url = session.get("connectUrl")
        return RemoteSession(
            provider_session_id=session["id"],
            connect_url=url if isinstance(url, str) else "",
            label=label if isinstance(label, str) else None,
            running=session.get("status") not in _OVER,
            created_at=moment(session.get("createdAt")),
        )
