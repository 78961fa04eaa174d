"""What is read of a conversation, what is changed in it, and what spends a session: pure, without a browser."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.pool.traffic import Meter
from tabkeeper.service.gateway.custody import Custody
from tabkeeper.service.gateway.talk import Talk

ROOT, OWN, FIRST = None, "SOWN", "SFIRST"


class Story:
    """A conversation in which the client has a context "C" of its own with a page, and the browser's first page."""

    def __init__(self, meter=None):
        self.custody = Custody()
        self.counted: list[tuple[str, dict]] = []
        self.talk = Talk(
            self.custody, meter or (lambda *event: self.counted.append(event)), lambda: {"id": "l1"}
        )
        self.number = 0
        self.say("Target.createBrowserContext", disposeOnDetach=True)
        self.hear({"id": 1, "result": {"browserContextId": "C"}})
        self.enabled = [self.attach(OWN, "T1", "C"), self.attach(FIRST, "T0", "default")]

    def say(self, method, session=ROOT, **params):
        self.number += 1
        command = {"id": self.number, "method": method, "params": params}
        return self.talk.said(json.dumps(command if session is None else command | {"sessionId": session}))

    def hear(self, message):
        return self.talk.heard(json.dumps(message, separators=(",", ":")).encode())

    def attach(self, session, target, context, kind="page"):
        info = {"targetId": target, "type": kind, "browserContextId": context}
        return self.hear(
            {"method": "Target.attachedToTarget", "params": {"sessionId": session, "targetInfo": info}}
        )[1]

    def loaded(self, session, size):
        params = {"requestId": "1", "encodedDataLength": size}
        return self.hear({"method": "Network.loadingFinished", "params": params, "sessionId": session})[0]


@pytest.mark.parametrize(
    ("session", "method", "params"),
    [
        (ROOT, "Browser.getVersion", {}),
        (ROOT, "Target.setAutoAttach", {"autoAttach": True}),
        (ROOT, "Target.createTarget", {"url": "about:blank", "browserContextId": "C"}),
        (ROOT, "Storage.setCookies", {"cookies": [], "browserContextId": "C"}),
        (ROOT, "Browser.setDownloadBehavior", {"behavior": "default"}),
        (OWN, "Page.navigate", {"url": "https://example.com"}),
        (OWN, "Runtime.evaluate", {"expression": "1"}),
        (OWN, "Runtime.evaluate", {"expression": "x" * (1 << 21)}),
        (FIRST, "Page.enable", {}),
        (FIRST, "Runtime.runIfWaitingForDebugger", {}),
    ],
)
def test_what_stays_in_a_context_of_the_client_s_own_spends_nothing(session, method, params):
    story = Story()
    story.say(method, session, **params)
    assert story.custody.spent == ""


@pytest.mark.parametrize(
    ("session", "method", "params"),
    [
        (ROOT, "Target.createTarget", {"url": "about:blank"}),
        (ROOT, "Target.createTarget", {"url": "about:blank", "browserContextId": "other"}),
        (ROOT, "Target.createTarget", {"url": " CHROME://settings", "browserContextId": "C"}),
        (ROOT, "Storage.setCookies", {"cookies": []}),
        (ROOT, "Browser.grantPermissions", {"permissions": []}),
        (ROOT, "Target.exposeDevToolsProtocol", {"targetId": "T1"}),
        (ROOT, "Tracing.start", {}),
        (ROOT, "Extensions.loadUnpacked", {"path": "/x"}),
        (OWN, "Page.navigate", {"url": "chrome://flags"}),
        (OWN, "Storage.clearDataForOrigin", {"browserContextId": "default"}),
        (OWN, "Target.attachToBrowserTarget", {}),
        (OWN, "Browser.crash", {}),
        (ROOT, "Target.disposeBrowserContext", {"browserContextId": ["C"]}),
        (FIRST, "Page.navigate", {"url": "https://example.com"}),
        (FIRST, "Runtime.evaluate", {"expression": "1"}),
        ("nobody", "Runtime.evaluate", {"expression": "1"}),
        (ROOT, "Tracing.start", {"x": "y" * (1 << 21)}),
        (FIRST, "Runtime.evaluate", {"expression": "x" * (1 << 21)}),
    ],
)
def test_what_cannot_be_undone_spends_the_session_and_is_carried_out(session, method, params):
    story = Story()
    step = story.say(method, session, **params)
    assert story.custody.spent
    assert [json.loads(one)["method"] for one in step.to_browser] == [method]


def test_an_identity_is_at_home_in_the_first_context_and_no_further():
    story = Story()
    story.custody.at_home = True
    story.say("Target.createTarget", url="about:blank")
    story.say("Storage.setCookies", cookies=[])
    story.say("Page.navigate", FIRST, url="https://example.com")
    assert story.custody.spent == ""
    story.say("Target.createTarget", url="about:blank", browserContextId="other")
    assert story.custody.spent
    for method, session in (
        ("Tracing.start", ROOT),
        ("Browser.crash", FIRST),
        ("Runtime.evaluate", "nobody"),
    ):
        story = Story()
        story.custody.at_home = True
        story.say(method, session)
        assert story.custody.spent


def test_a_context_that_was_closed_is_not_the_client_s_any_more():
    story = Story()
    story.say("Target.disposeBrowserContext", browserContextId="C")
    assert story.custody.spent == ""
    story.say("Target.createTarget", browserContextId="C", url="about:blank")
    assert story.custody.spent


def test_what_is_judged_is_what_is_sent():
    """A second "method" wins with some readers and loses with others; only one is passed on."""
    story = Story()
    tricky = '{"id": 9, "method": "Tracing.start", "params": {}, "method": "Browser.getVersion"}'
    [sent] = story.talk.said(tricky).to_browser
    assert json.loads(sent, object_pairs_hook=list)[1] == ("method", "Browser.getVersion")
    assert sent.count("method") == 1
    for unread in ('{"id": 1, /* */ "method": "Browser.getVersion"}', '{"id": NaN}x', "[" * 100_000):
        story = Story()
        assert story.talk.said(unread).to_browser == [unread]
        assert story.custody.spent


@pytest.mark.parametrize(
    "trick",
    [
        '"method":"Runtime.evaluate","sessionId":"SOWN","m\\u0065thod":"Tracing.start"',
        '"method":"Runtime.evaluate","sessionId":"SOWN","method":"Tracing.start"',
        '"method":"Runtime.evaluate","sessionId":"SOWN","sessionId":"SFIRST"',
        '"method":"Runtime.evaluate","sessionId":"SOWN","sessionId"/**/:"SFIRST"',
        '"method":"Runtime.evaluate"',
        '"method":"Tracing\\u002estart","sessionId":"SOWN"',
    ],
)
def test_a_long_message_cannot_hide_what_it_is_for(trick):
    story = Story()
    story.talk.said(f'{{"id":1,{trick},"params":{{"expression":"{"x" * (1 << 20)}"}}}}')
    assert story.custody.spent


def test_contexts_outlive_the_connection_because_we_close_them():
    story = Story()
    [sent] = story.say("Target.createBrowserContext", disposeOnDetach=True, proxyServer="x").to_browser
    assert json.loads(sent)["params"] == {"proxyServer": "x"}


def test_bytes_are_counted_once_for_each_page_and_told_to_who_asked_only():
    story = Story()
    assert all(json.loads(one)["method"] == "Network.enable" for one in story.enabled)
    for one in story.enabled:
        assert story.hear({"id": json.loads(one)["id"], "result": {}}) == (False, None), (
            "our answer, not theirs"
        )
    assert not story.loaded(OWN, 100), "it has not asked for that"
    story.say("Network.enable", OWN)
    assert story.loaded(OWN, 10)
    assert story.attach("SSECOND", "T1", "C") is None, "another session of the same page"
    story.say("Network.enable", "SSECOND")
    assert story.loaded("SSECOND", 10)
    step = story.say("Network.disable", OWN)
    assert [json.loads(one)["method"] for one in step.to_browser] == ["Network.disable", "Network.enable"]
    assert not story.loaded(OWN, 1)
    assert [params["encodedDataLength"] for _, params in story.counted] == [100, 10, 1]


def test_what_pages_received_is_counted_and_nonsense_is_not():
    meter = Meter()
    story = Story(meter.heard)
    story.loaded(OWN, 100)
    for event in ({}, {"requestId": []}, {"requestId": "2", "encodedDataLength": "9"}, {"requestId": "2"}):
        for method in ("Network.dataReceived", "Network.loadingFinished", "Network.loadingFailed"):
            story.hear({"method": method, "params": event, "sessionId": OWN})
    assert meter.received == 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
commands = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "method": st.sampled_from(
            ["Target.createBrowserContext", "Tabkeeper.release", "Network.disable", "A.b"]
        )
        | json_values,
        "params": json_values
        | st.dictionaries(st.sampled_from(["browserContextId", "url", "reason"]), json_values),
        "sessionId": st.sampled_from([OWN, FIRST]) | json_values,
        "result": json_values,
    },
)


@given(st.lists(st.tuples(st.booleans(), commands | json_values | st.text()), max_size=6))
def test_nothing_that_anybody_says_breaks_it(said):
    story = Story()
    for by_client, message in said:
        text = message if isinstance(message, str) else json.dumps(message)
        if by_client:
            step = story.talk.said(text)
            assert step.to_browser or step.to_client
        else:
            passes, _ = story.talk.heard(text.encode("utf-8", "surrogatepass"))
            assert passes in {True, False}


@given(st.text(max_size=50), st.integers(0, 2**40))
def test_what_passes_means_the_same(text, number):
    story = Story()
    command = {"id": number, "method": "Runtime.evaluate", "params": {"expression": text}, "sessionId": OWN}
    [sent] = story.talk.said(json.dumps(command)).to_browser
    assert json.loads(sent) == command
    assert story.custody.spent == ""
