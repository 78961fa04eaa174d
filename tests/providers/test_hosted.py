"""What the adapter of every hosted provider must do beyond the contract of all providers, run on each of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import Provider
from tabkeeper.providers.emulator import KINDS, Emulator, Phase, serving

from .started import moment, started


@dataclass
class Hosted:
    provider: Provider
    emulator: Emulator


@pytest.fixture(params=sorted(KINDS))
def kind(request) -> str:
    return request.param


def adapter(settings, **more: Any) -> Provider:
    return type(make_provider("far", settings))("far", settings, sleep=moment, **more)


@pytest.fixture
async def hosted(kind, tools) -> AsyncIterator[Hosted]:
    async with serving(KINDS[kind](keys=[tools.key])) as emulator:
        async with started(adapter(tools.at(emulator)), emulator) as provider:
            yield Hosted(provider, emulator)
        assert emulator.running == []


REFUSALS = {
    400: ProviderRequestError,
    401: ProviderAuthError,
    402: ProviderPaymentError,
    403: ProviderAuthError,
    409: ProviderRequestError,
    422: ProviderRequestError,
    429: ProviderRateLimitError,
    500: OutcomeUnknownError,
    502: OutcomeUnknownError,
    503: OutcomeUnknownError,
    504: OutcomeUnknownError,
}
OWN_REFUSALS = {
    ("anchor", 403): ProviderPaymentError,
    ("browserless", 404): ProviderRequestError,
    ("browserless", 408): OutcomeUnknownError,
    ("kernel", 529): ProviderCapacityError,
}
"""Where a provider means something else, or has statuses of its own; said in docs/providers."""


async def test_a_refused_create_is_sent_once_and_named(hosted, kind, tools):
    emulator = hosted.emulator
    expected = REFUSALS | {status: error for (one, status), error in OWN_REFUSALS.items() if one == kind}
    for number, (status, error) in enumerate(expected.items()):
        order = emulator.misbehave("create", "status", status=status)
        with pytest.raises(error):
            await hosted.provider.create(tools.spec(f"s{number}"))
        assert (order.done, emulator.sessions) == (1, {}), "sent again, it would have succeeded"


@pytest.mark.parametrize(
    "body", [{}, {"id": ""}, {"id": 5}, {"session_id": 5}, {"data": {"id": 5}}, [], "x"], ids=str
)
async def test_an_answer_that_names_no_session_is_an_unknown_outcome(kind, tools, body):
    settings = tools.settings(kind)
    provider = adapter(settings, transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body)))
    await provider.start(lambda *_: None)
    with pytest.raises(OutcomeUnknownError):
        await provider.create(tools.spec())


@pytest.mark.parametrize("bad", ["", "..", "../projects", "a/b", "a?b=c"])
async def test_an_id_cannot_lead_elsewhere(hosted, bad):
    with pytest.raises((ProviderRequestError, ProviderUnavailableError)):
        await hosted.provider.close(bad)
    assert hosted.emulator.requests == []


async def test_secrets_show_nowhere(hosted, tools, caplog):
    caplog.set_level(logging.DEBUG)
    provider, emulator = hosted.provider, hosted.emulator
    made = await provider.create(tools.spec())
    emulator.misbehave("release", "status", status=401)
    with pytest.raises(ProviderAuthError) as told:
        await provider.close(made.provider_session_id)
    (session,) = emulator.sessions.values()
    loggers = ("httpx", "httpcore", "tabk")
    said = [record.getMessage() for record in caplog.records if record.name.startswith(loggers)]
    assert said
    for text in (*said, repr(provider._api), repr(provider._settings), repr(made), str(told.value)):
        assert tools.key not in text
        assert session.secret not in text


@pytest.mark.parametrize("answer", [None, 400, 404, 409, 410])
async def test_a_second_release_counts_as_closed_whatever_is_answered(hosted, kind, tools, answer):
    provider, emulator = hosted.provider, hosted.emulator
    if kind == "browserless" and answer in {400, 409}:
        pytest.skip("nothing there says whether a session still runs, so it does")
    emulator.release_again = answer
    made = await provider.create(tools.spec())
    await provider.close(made.provider_session_id)
    await provider.close(made.provider_session_id)
    await provider.close("nobody")
    assert [one.phase for one in emulator.sessions.values()] == [Phase.COMPLETED]


async def test_a_release_that_fails_three_times_is_sent_a_fourth_time(hosted, tools):
    made = await hosted.provider.create(tools.spec())
    order = hosted.emulator.misbehave("release", "status", status=500, times=3)
    await hosted.provider.close(made.provider_session_id)
    assert order.done == 3
    assert hosted.emulator.running == []


async def test_an_end_is_believed_when_it_is_seen(hosted, tools):
    provider, emulator = hosted.provider, hosted.emulator
    made = await provider.create(tools.spec())
    emulator.misbehave("get", "stale", times=2)
    await provider.close(made.provider_session_id)
    assert not provider.alive(made.provider_session_id)
