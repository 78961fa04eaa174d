"""Alerts on their way: each crossing once, each channel at least once, over refusals, deaths and restarts."""

import asyncio
import hashlib
import hmac
import logging
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from tabkeeper.alerts.alert import Alert
from tabkeeper.alerts.channel import DeliveryError, HookChannel, LogChannel, find_hooks
from tabkeeper.alerts.dispatch import Dispatcher
from tabkeeper.alerts.webhook import Webhook, sign
from tabkeeper.clock import VirtualClock
from tabkeeper.config import WebhookSettings, parse_config
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.reports.books import Books
from tabkeeper.reports.days import DayReports

from .receiver import receiving

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock():
    return VirtualClock(NOON)


@pytest.fixture
async def ledger(ledger_url, clock):
    opened = await Ledger.open(parse_config({"ledger": {"url": ledger_url}}), clock=clock)
    yield opened
    assert await opened.verify() == []
    await opened.aclose()


def dispatcher(ledger, *channels, since=NOON, **settings):
    rules = parse_config({"alerts": settings}).alerts
    return Dispatcher(ledger.alerts, rules, channels, since=since, rng=Random(1))


async def tell(ledger, *what, **more):
    ledger.alerts.tell(*what, **more)
    await ledger.flush()


class Seen:
    """A channel that remembers, and fails as often as it is told to."""

    def __init__(self, name="seen", fail=0):
        self.name, self.fail, self.keys = name, fail, []

    def wants(self, _alert):
        return True

    async def send(self, alert):
        if self.fail:
            self.fail -= 1
            raise DeliveryError("not now")
        self.keys.append(alert.key)


async def test_an_event_is_delivered_once_on_each_channel(ledger):
    one, two = Seen("one"), Seen("two")
    await tell(ledger, "leak", "k1", "a lease is not released")
    await tell(ledger, "leak", "k1", "a lease is not released")
    await tell(ledger, "queue_wait", "k2", "a request waits")
    first = dispatcher(ledger, one, two)
    assert await first.run() == 4
    assert await first.run() == 0
    assert await dispatcher(ledger, one, two).run() == 0  # after a restart, too
    assert one.keys == two.keys == ["k1", "k2"]


async def test_a_channel_that_fails_is_tried_again_later_and_does_not_hold_up_the_others(ledger, clock):
    bad, good = Seen("bad", fail=2), Seen("good")
    await tell(ledger, "leak", "k", "")
    one = dispatcher(ledger, bad, good, retry_base="10s")
    assert await one.run() == 1
    assert good.keys == ["k"]
    assert await one.run() == 0
    clock.advance(13)
    assert await one.run() == 0  # refused once more; the pause doubles
    clock.advance(13)
    assert await one.run() == 0
    assert bad.keys == []
    clock.advance(13)
    assert await one.run() == 1
    assert bad.keys == ["k"]


async def test_a_channel_that_never_takes_it_gives_up_and_says_so(ledger, clock):
    dead = Seen("dead", fail=99)
    await tell(ledger, "leak", "k", "")
    one = dispatcher(ledger, dead, attempts=3, retry_base="1s", retry_max="1s")
    for _ in range(5):
        await one.run()
        clock.advance(2)
    assert dead.fail == 96
    ((event, (delivery,)),) = await ledger.alerts.recent(5)
    assert (event.key, delivery.state, delivery.attempts, delivery.last_error) == ("k", "dead", 3, "not now")


async def test_who_dies_between_sending_and_noting_leaves_a_claim_that_runs_out(ledger, clock):
    await tell(ledger, "leak", "k", "")
    seen = Seen()

    class Dies(Seen):
        async def send(self, alert):
            await super().send(alert)
            raise asyncio.CancelledError

    dies = Dies()
    with pytest.raises(asyncio.CancelledError):
        await dispatcher(ledger, dies).run()
    assert dies.keys == ["k"]
    assert await dispatcher(ledger, seen).run() == 0  # it is claimed
    clock.advance(3600)
    assert await dispatcher(ledger, seen).run() == 1
    assert seen.keys == ["k"]


async def test_two_processes_do_not_deliver_the_same_event_twice(ledger):
    seen = [Seen(), Seen(), Seen()]
    for i in range(50):
        await tell(ledger, "leak", f"k{i}", "")
    await ledger.flush()
    taken = await asyncio.gather(*(dispatcher(ledger, one).run() for one in seen))
    assert sum(taken) == 50
    assert sorted(key for one in seen for key in one.keys) == sorted(f"k{i}" for i in range(50))


async def test_a_new_channel_hears_nothing_old_and_stale_alerts_are_let_be(ledger, clock):
    await tell(ledger, "leak", "old", "")
    clock.advance(60)
    late = Seen("late")
    assert await dispatcher(ledger, late, since=clock.now()).run() == 0
    await tell(ledger, "leak", "new", "")
    assert await dispatcher(ledger, late, since=clock.now()).run() == 1
    await tell(ledger, "leak", "forgotten", "")
    clock.advance(8 * 86400)
    assert await dispatcher(ledger, late).run() == 0
    assert late.keys == ["new"]


async def test_hooks_may_be_functions_coroutines_and_objects(ledger, caplog):
    told = []

    def plain(alert):
        told.append(("plain", alert.key))

    async def coroutine(alert):
        told.append(("coroutine", alert.key))

    class Object:
        async def __call__(self, alert):
            told.append(("object", alert.key))

    hooks = [HookChannel(plain), HookChannel(coroutine), HookChannel(Object()), LogChannel()]
    await tell(ledger, "leak", "k", "lease l1 is held")
    with caplog.at_level(logging.WARNING, "tabkeeper.alerts"):
        assert await dispatcher(ledger, *hooks).run() == 4
    assert sorted(told) == [("coroutine", "k"), ("object", "k"), ("plain", "k")]
    assert "A lease is not released: lease l1 is held" in caplog.text


async def test_a_hook_that_raises_or_hangs_is_called_again(ledger, clock):
    calls = []

    def hook(alert):
        calls.append(alert.key)
        if len(calls) == 1:
            raise RuntimeError("disk full")

    await tell(ledger, "leak", "k", "")
    one = dispatcher(ledger, HookChannel(hook))
    assert await one.run() == 0
    ((_, (delivery,)),) = await ledger.alerts.recent(1)
    assert delivery.last_error == "RuntimeError: disk full"
    clock.advance(10)
    assert await one.run() == 1
    assert calls == ["k", "k"]


async def test_a_webhook_is_signed_carries_every_field_and_can_be_slack(ledger, clock):
    with receiving() as ops, receiving() as slack:
        hooks = [
            Webhook(WebhookSettings(name="ops", url=ops.url, secret="s3cret"), clock=clock),
            Webhook(WebhookSettings(name="slack", url=slack.url, format="slack"), clock=clock),
            Webhook(WebhookSettings(name="picky", url=slack.url, kinds=("overrun",)), clock=clock),
        ]
        await tell(ledger, "queue_wait", "k", "a request has waited 31 s", session_id="s1")
        await dispatcher(ledger, *hooks).run()
        (message,) = ops.took
        at, digest = (part.partition("=")[2] for part in message["headers"]["tabkeeper-signature"].split(","))
        expected = hmac.new(b"s3cret", at.encode() + b"." + message["raw"], hashlib.sha256).hexdigest()
        assert (int(at), digest) == (int(NOON.timestamp()), expected)
        assert Alert.model_validate(message["body"]).text == "session s1: a request has waited 31 s"
        assert ops.keys == ["k"]
        assert [m["body"] for m in slack.took] == [
            {"text": "\N{WARNING SIGN} *Requests wait too long*\nsession s1: a request has waited 31 s"}
        ]


async def test_a_webhook_that_refuses_is_obeyed_in_when_to_come_back(ledger, clock, caplog):
    with receiving() as ops:
        hook = Webhook(WebhookSettings(name="ops", url=ops.url + "?token=hush"), clock=clock)
        one = dispatcher(ledger, hook, retry_base="1s")
        ops.refuse = [(429, {"Retry-After": "120"}), (500, {})]
        await tell(ledger, "leak", "k", "")
        assert await one.run() == 0
        clock.advance(100)
        assert await one.run() == 0
        assert len(ops.refuse) == 1
        clock.advance(30)
        assert await one.run() == 0
        clock.advance(10)
        assert await one.run() == 1
        assert ops.keys == ["k"]
    await tell(ledger, "leak", "k2", "")
    await one.run()  # nobody listens there any more
    assert "no answer" in caplog.text
    assert "hush" not in caplog.text


async def test_a_daily_report_is_carried_to_hooks_and_to_webhooks_that_ask_for_it(ledger, clock):
    books = Books(ledger, timezone="UTC", clock=clock)
    days = DayReports(ledger, books, zone="UTC", clock=clock, tell=True)
    clock.advance(86400)
    assert await days.run() == "wrote 2026-03-04"
    heard = []
    with receiving() as one, receiving() as two:
        asks = Webhook(WebhookSettings(name="asks", url=one.url, reports=True), clock=clock)
        plain = Webhook(WebhookSettings(name="plain", url=two.url), clock=clock)
        rules = parse_config({}).alerts
        carrier = Dispatcher(
            ledger.alerts, rules, [asks, plain, HookChannel(heard.append)], since=NOON, rng=Random(1),
            kept_report=books.kept_report,
        )  # fmt: skip
        assert await carrier.run() == 3
    (alert,) = heard
    assert alert.report == await books.kept_report(NOON.date())
    assert "Cost of Wednesday 4 March 2026" in alert.page()
    assert one.took[0]["body"]["report"]["label"] == "2026-03-04"
    assert "report" not in two.took[0]["body"]


def test_the_signature_is_what_the_docs_say():
    expected = hmac.new(b"key", b"1700000000.{}", hashlib.sha256).hexdigest()
    assert sign(b"{}", "key", 1700000000) == f"t=1700000000,v1={expected}"


def test_hooks_named_in_the_configuration_are_found_or_refused():
    (hook,) = find_hooks(["json:dumps"])
    assert hook.name == "hook:json:dumps"
    for wrong in ("nowhere.at.all:f", "json:nothing", "json:__name__"):
        with pytest.raises(ConfigError, match=r"alerts\.hooks"):
            find_hooks([wrong])


async def test_the_words_of_a_budgets_alert_say_how_much_of_what(ledger):
    told = []
    await tell(ledger, "estimate", "k", "owner died", session_id="s9")
    await dispatcher(ledger, HookChannel(told.append), since=NOON - timedelta(days=1)).run()
    (alert,) = told
    assert alert.severity == "warning"
    assert "nobody saw the end of session s9; it is counted with $0.00" in alert.text
