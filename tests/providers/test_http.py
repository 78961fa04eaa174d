"""The shared HTTP client: what is sent again and what never, what an answer means, and where keys do not show."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

import httpx
import pytest
from pydantic import SecretStr

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderError,
    ProviderNotFoundError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.http import ATTEMPTS, Api, Refusal
from tabkeeper.providers.redact import redact

KEY = "bb_live_s3cret/+"


class Far:
    """A server that is told its answers in advance, the last one for ever, and a sleeper that only counts."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def api(self, judge: Callable[[Refusal], ProviderError | None] = lambda _: None, **more) -> Api:
        return Api(
            "bb",
            "https://api.example/base",
            headers={"x-key": SecretStr(KEY)},
            judge=judge,
            transport=httpx.MockTransport(self),
            sleep=self.sleep,
            clock=VirtualClock(datetime(2026, 11, 20, 12, tzinfo=UTC)),
            rng=Random(1),
            **more,
        )


def says(status: int, message: str = "no", **headers: str) -> httpx.Response:
    return httpx.Response(
        status, json={"message": message}, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


async def test_the_key_is_sent_and_a_body_only_where_there_is_one():
    far = Far(httpx.Response(200, json={"id": 1}))
    api = far.api()
    assert await api.repeat("GET", "/v1/x", query={"q": "a'b"}) == {"id": 1}
    await api.once("POST", "/v1/x", body={})
    read, create = far.asked
    assert read.headers["x-key"] == KEY
    assert read.url == "https://api.example/base/v1/x?q=a%27b"
    assert "content-type" not in read.headers
    assert "content-length" not in read.headers
    assert create.headers["content-type"] == "application/json"
    assert create.content == b"{}"


async def test_an_empty_answer_is_none():
    assert await Far(httpx.Response(204)).api().repeat("DELETE", "/x") is None


async def test_headers_can_be_had_with_the_answer():
    body, headers = (
        await Far(httpx.Response(200, json=[1], headers={"X-Next": "7"}))
        .api()
        .repeat_for_headers("GET", "/x")
    )
    assert (body, headers["x-next"]) == ([1], "7")


async def test_the_words_of_several_complaints_are_joined_and_a_bearer_key_shows_in_none():
    body = {"detail": [{"loc": ["body", "timeout"], "msg": "too long"}, {"msg": "for s3cret"}]}
    api = Far(httpx.Response(422, json=body)).api()
    with pytest.raises(ProviderRequestError, match="too long; for s3cret"):
        await api.repeat("GET", "/x")
    bearer = Api(
        "bb",
        "https://api.example",
        headers={"authorization": SecretStr("Bearer s3cret")},
        transport=httpx.MockTransport(Far(httpx.Response(422, json=body))),
    )
    with pytest.raises(ProviderRequestError, match="too long; for …"):
        await bearer.repeat("GET", "/x")


def test_a_host_that_is_a_key_is_not_shown():
    shown = redact("https://0e8b9d08-28ad-4104-860b-bf7d9be7f898.cdp2.example/x")
    assert shown == "https://….cdp2.example/…"


MEANINGS = {
    400: ProviderRequestError,
    401: ProviderAuthError,
    402: ProviderPaymentError,
    403: ProviderAuthError,
    404: ProviderNotFoundError,
    409: ProviderRequestError,
    410: ProviderNotFoundError,
    418: ProviderRequestError,
    422: ProviderRequestError,
    302: ProviderRequestError,
    429: ProviderRateLimitError,
}


@pytest.mark.parametrize(("status", "kind"), MEANINGS.items())
async def test_a_refusal_means_the_same_for_creates_and_for_the_rest_but_for_what_is_not_found(status, kind):
    for verb in ("once", "repeat"):
        # What a create does not find is not its session.
        lost = verb == "once" and kind is ProviderNotFoundError
        meant = ProviderRequestError if lost else kind
        with pytest.raises(meant, match=rf"'bb'.*status {status}: because") as told:
            await getattr(Far(says(status, "because")).api(), verb)("POST", "/x")
        assert type(told.value) is meant


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_a_failed_create_is_sent_once_and_its_outcome_unknown(status):
    far = Far(says(status))
    with pytest.raises(OutcomeUnknownError):
        await far.api().once("POST", "/x", body={})
    assert len(far.asked) == 1
    assert far.slept == []


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("x"),
        httpx.WriteTimeout("x"),
        httpx.ReadError("x"),
        httpx.WriteError("x"),
        httpx.RemoteProtocolError("x"),
    ],
)
async def test_a_create_that_may_have_been_sent_is_unknown_a_read_is_tried_again(error):
    far = Far(error)
    with pytest.raises(OutcomeUnknownError, match=type(error).__name__):
        await far.api().once("POST", "/x")
    assert len(far.asked) == 1
    far = Far(error, error, httpx.Response(200, json=[]))
    assert await far.api().repeat("GET", "/x") == []
    assert len(far.asked) == 3


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("x"), httpx.ConnectTimeout("x"), httpx.PoolTimeout("x")]
)
async def test_a_create_that_was_never_sent_created_nothing(error):
    far = Far(error)
    with pytest.raises(ProviderUnavailableError, match="cannot be reached"):
        await far.api().once("POST", "/x")
    assert len(far.asked) == 1


async def test_a_created_something_that_cannot_be_read_is_unknown():
    with pytest.raises(OutcomeUnknownError, match="JSON"):
        await Far(httpx.Response(201, text="<html>")).api().once("POST", "/x")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_reads_are_tried_again_with_growing_jittered_pauses_and_then_given_up(status):
    far = Far(says(status))
    with pytest.raises((ProviderUnavailableError, ProviderRateLimitError)):
        await far.api().repeat("GET", "/x")
    assert len(far.asked) == ATTEMPTS == 4
    for slept, base in zip(far.slept, (0.5, 1.0, 2.0), strict=True):
        assert 0.75 * base <= slept <= 1.25 * base
    assert len({slept / base for slept, base in zip(far.slept, (0.5, 1.0, 2.0), strict=True)}) == 3


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 410, 422])
async def test_a_definite_no_is_not_asked_again(status):
    far = Far(says(status))
    with pytest.raises(ProviderError):
        await far.api().repeat("GET", "/x")
    assert len(far.asked) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "7.5"}, 7.5),
        ({"retry_after": "Fri, 20 Nov 2026 12:00:09 GMT"}, 9.0),
        ({"retry_after": "Fri, 20 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "-3"}, 0.0),
        ({"retry_after": "86400"}, 3600.0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({}, None),
    ],
)
async def test_what_a_provider_asks_to_wait_is_read_and_bounded(headers, seconds):
    with pytest.raises(ProviderRateLimitError) as told:
        await Far(says(429, **headers)).api().once("POST", "/x")
    assert told.value.retry_after == seconds


async def test_a_read_waits_as_long_as_it_is_asked_but_not_for_minutes():
    far = Far(says(429, retry_after="7"), httpx.Response(200, json=1))
    assert await far.api().repeat("GET", "/x") == 1
    assert far.slept == [7.0]
    far = Far(says(503, retry_after="31"))
    with pytest.raises(ProviderUnavailableError) as told:
        await far.api().repeat("GET", "/x")
    assert told.value.retry_after == 31
    assert far.slept == []


async def test_an_adapter_may_judge_for_itself():
    def judge(refusal: Refusal) -> ProviderError | None:
        if "concurrent" in refusal.message:
            return ProviderCapacityError(refusal.provider, refusal.message)
        return None

    with pytest.raises(ProviderCapacityError):
        await Far(says(429, "max concurrent sessions")).api(judge).once("POST", "/x")
    with pytest.raises(ProviderRateLimitError):
        await Far(says(429, "slow down")).api(judge).once("POST", "/x")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"code": 401, "message": "Invalid"}}, "Invalid"),
        ({"error": "Unauthorized", "message": "Key"}, "Key"),
        ({"detail": "gone"}, "gone"),
        ({"error": "plain"}, "plain"),
        ([1], "Bad Request"),
    ],
)
async def test_the_words_of_an_error_are_found_wherever_they_stand(body, words):
    with pytest.raises(ProviderRequestError, match=f"status 400: {words}$"):
        await Far(httpx.Response(400, json=body)).api().once("POST", "/x")


async def test_keys_show_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    quoted = f"bad key {KEY}, see wss://connect.example/?signingKey={KEY}"
    told = []
    far = Far(says(400, quoted))
    api = far.api(query={"token": SecretStr(KEY)})
    for verb in ("once", "repeat"):
        with pytest.raises(ProviderRequestError) as one:
            await getattr(api, verb)("POST", "/x")
        told.append(str(one.value))
    far.answers = [httpx.ReadTimeout(quoted)]
    with pytest.raises(OutcomeUnknownError) as one:
        await api.once("POST", "/x")
    told.append(str(one.value))
    assert "token=" in str(far.asked[0].url)
    assert caplog.text
    for text in (*told, caplog.text, repr(api)):
        assert not re.search(r"s3cret|signingKey", text)
