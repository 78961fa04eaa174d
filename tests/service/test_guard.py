"""Who is let in at all: names, origins, tokens, sizes, and how long a request may take."""

import asyncio
import json
import re
from contextlib import nullcontext
from importlib.resources import files

import httpx
import pytest

from tabkeeper.config import ServiceSettings, parse_config
from tabkeeper.errors import ConfigError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.service import create_app
from tabkeeper.service.server import serving
from tabkeeper.service.tokens import hash_token, new_token
from tabkeeper.testing import run_virtual

from .world import MAIN, TOKENS, house

SHOWN = "https://ops.example.com:8443"


def test_without_a_token_or_with_a_wrong_one_nothing_is_told():
    async def story(clock):
        async with house(clock) as here:
            for token in (None, "tk_wrong", MAIN + "x"):
                async with here.client(token) as http:
                    for path in ("/sessions", "/leases", "/stats", "/queue", "/no/such/path"):
                        told = await http.get(path)
                        assert (told.status_code, told.json()["title"]) == (401, "A token is needed")
                        assert told.headers["www-authenticate"].startswith("Bearer")
                    assert token is not None or (await http.get("/health")).status_code == 200
            async with here.client(None, headers={"Authorization": "Basic eDp5"}) as http:
                assert (await http.get("/sessions")).status_code == 401
            async with here.client(None) as http:
                assert (await http.get(f"/sessions?token={MAIN}")).status_code == 401  # would be in every log

    run_virtual(story)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8020", 200),
        ("localhost:1", 200),
        ("[::1]:8020", 200),
        ("192.168.7.7", 200),
        ("ops.example.com", 200),
        ("rebound.example.org:8020", 403),
        ("127.0.0.1.example.org", 403),
        ("127.0.0.1:8020@evil.example", 400),
        ("", 400),
    ],
)
def test_only_its_own_names_are_answered(host, status):
    async def story(clock):
        async with house(clock, service={"hosts": ["ops.example.com"]}) as here:
            async with here.client(headers={"Host": host}) as http:
                assert (await http.get("/sessions")).status_code == status

    run_virtual(story)


def test_pages_of_other_origins_are_refused_even_with_a_token():
    async def story(clock):
        async with (
            house(clock, service={"origins": ["https://ops.example.com"]}) as here,
            here.client() as http,
        ):
            for origin, status in {
                "http://127.0.0.1:8020": 200,
                "https://ops.example.com": 200,
                "http://127.0.0.1:9000": 403,
                "https://evil.example": 403,
                "null": 403,
                "http://[::1": 403,
                "": 403,
            }.items():
                told = await http.get("/sessions", headers={"Origin": origin})
                assert told.status_code == status, origin
                assert told.headers.get("access-control-allow-origin") == (
                    origin if "ops" in origin else None
                )
            for site in ("cross-site", "same-site"):
                assert (await http.get("/sessions", headers={"Sec-Fetch-Site": site})).status_code == 403
            assert (await http.get("/sessions", headers={"Sec-Fetch-Site": "same-origin"})).status_code == 200

    run_virtual(story)


def test_a_body_that_is_too_large_is_refused_announced_or_not():
    async def story(clock):
        async def endless():
            for _ in range(100):
                yield b"x" * 1000

        async with house(clock, service={"max_body": 4096}) as here, here.client() as http:
            for body in (b"x" * 5000, endless()):
                told = await http.post("/leases", content=body, headers={"Content-Type": "application/json"})
                assert (told.status_code, told.json()["title"]) == (413, "The request is too large")
            for length, status in {"9" * 5000: 413, "-1": 400, "1e3": 400}.items():
                told = await http.post("/leases", content=b"{}", headers={"Content-Length": length})
                assert told.status_code == status, length

    run_virtual(story)


def test_mistakes_are_answered_in_one_form_and_never_repeat_what_was_sent():
    async def story(clock):
        async with house(clock) as here, here.client() as http:
            for content, status in {
                b"{": 400,
                b"\xff\xfe": 400,
                b"[]": 422,
                b'{"platform": "web", "identity": 5, "surprise-secret": "hunter2"}': 422,
                b'{"platform": "nowhere"}': 422,
                b'{"platform": "web", "priority": 5000}': 422,
                b'{"platform": "web", "max_duration": 99999}': 422,
                b'{"platform": "web", "profile": "not a site"}': 422,
            }.items():
                told = await http.post(
                    "/leases", content=content, headers={"Content-Type": "application/json"}
                )
                assert told.status_code == status, (content, told.text)
                assert told.headers["content-type"] == "application/problem+json"
                assert told.headers["x-content-type-options"] == "nosniff"
                assert told.json()["detail"]
                assert "hunter2" not in told.text
            assert (await http.get("/leases/../../etc/passwd")).status_code in {404, 422}
            assert (await http.get("/leases/%2e%2e%2fstats")).status_code in {404, 422}
            assert (await http.get("/sessions/..%2f..%2fetc%2fpasswd")).status_code in {404, 422}
            assert (await http.put("/leases")).status_code == 405
            assert (await http.get("/leases/")).headers["content-type"] == "application/problem+json"
            form = await http.post("/leases", data={"platform": "web"})
            assert (form.status_code, "Content-Type: application/json" in form.json()["detail"]) == (
                422,
                True,
            )

    run_virtual(story)


@pytest.mark.parametrize("takes_away", [True, False])
def test_a_reverse_proxy_may_show_it_under_a_path_and_take_that_away_or_not(takes_away):
    """What a proxy does is done here to the path; the scheme is the server's part, which believes `forwarders`."""

    async def story(clock):
        more = {"path": "/tk", "hosts": ["ops.example.com"]}
        async with house(clock, service=more) as here, here.client(base_url=SHOWN) as http:
            under = "" if takes_away else "/tk"
            told = await http.post(f"{under}/leases", json={"platform": "web"})
            lease = told.json()
            assert told.headers["location"] == f"/tk/leases/{lease['id']}"
            assert lease["cdp_url"] == f"wss://ops.example.com:8443/tk/cdp?lease={lease['token']}"
            version = (await http.get(f"{under}/json/version", params={"platform": "web"})).json()
            assert version["webSocketDebuggerUrl"] == "wss://ops.example.com:8443/tk/cdp?platform=web"
            assert (await http.get("/tkx/health")).status_code == 404
            assert (await http.get("/openapi.json")).json()["servers"] == [{"url": "/tk"}]
            page = await http.get("/tk")
            assert (page.status_code, page.headers["location"]) == (308, "/tk/")
            async with here.client(None, base_url=SHOWN) as nobody:
                assert (await nobody.get(f"{under}/health")).status_code == 200
                assert (await nobody.get(f"{under}/")).status_code == 200
                assert (await nobody.get(f"{under}/assets/app.js")).status_code == 200
                assert (await nobody.get(f"{under}/stats")).status_code == 401
                assert (await nobody.get("/tk/tk/health")).status_code == 401

    run_virtual(story)


def test_dashboards_of_one_host_and_its_other_applications_do_not_share_cookies():
    """One at the top, one under a path that its proxy leaves, one under a path that its proxy takes away."""

    async def story(clock):
        sent = {}
        async with (
            house(clock) as top,
            house(clock, service={"path": "/kept"}) as kept,
            house(clock, service={"path": "/taken"}) as taken,
        ):

            async def proxy(scope, receive, send):
                sent[scope["path"]] = dict(scope["headers"]).get(b"cookie", b"").count(b"tabkeeper_session=")
                if scope["path"].startswith("/kept/"):
                    await kept.app(scope, receive, send)
                elif scope["path"].startswith("/taken/"):
                    await taken.app({**scope, "path": scope["path"][6:]}, receive, send)
                else:
                    await top.app(scope, receive, send)

            async def logged_in():
                return [(await http.get(f"{under}/now")).status_code == 200 for under in places]

            places = ("/kept", "/taken", "")
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(proxy), base_url="https://127.0.0.1"
            ) as http:
                for under in places[:2]:
                    assert (await http.post(f"{under}/login", json={"token": MAIN})).status_code == 204
                assert await logged_in() == [True, True, False]
                assert sent["/now"] == 0
                assert (await http.post("/login", json={"token": MAIN})).status_code == 204
                assert await logged_in() == [True, True, True]
                assert (sent["/kept/now"], sent["/taken/now"]) == (2, 2)  # the top's, too
                assert (await http.post("/kept/logout")).status_code == 204
                assert await logged_in() == [False, True, True]
                assert (await http.post("/logout")).status_code == 204
                assert await logged_in() == [False, True, False]
            async with kept.client(None) as direct:
                assert (await direct.post("/login", json={"token": MAIN})).status_code == 204
                assert (await direct.get("/now")).status_code == 200

    run_virtual(story)


def test_pages_find_their_files_wherever_they_are_shown():
    folder = files("tabkeeper.service")
    for page in ("dashboard/index.html", "dashboard/app.js", "dashboard/parts.js", "gateway/watch.js"):
        said = folder.joinpath(page).read_text(encoding="utf-8")
        assert re.findall(r"""(?:href=|src=|href: |fetch\(|EventSource\(|URL\()["'`]/[^"'`]*""", said) == []


async def test_a_service_does_not_start_without_a_token_unless_told_to():
    for open_ in (True, False):
        pool = SessionPool(parse_config({"ledger": {"url": "sqlite://"}}), jobs=False)
        app = create_app(pool, open_=open_)
        with nullcontext() if open_ else pytest.raises(ConfigError, match="tokens create"):
            async with app.router.lifespan_context(app):
                assert open_
        assert not pool.is_open


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"token": "guessed"}, "token: at least 20 characters"),
        ({"tokens": [{"name": "ci", "token": "guessed"}]}, "token: at least 20 characters"),
        ({"hosts": ["https://ops.example.com"]}, "hosts.0: write .* with no scheme, port or path"),
        ({"hosts": ["ops.example.com:8443"]}, "hosts.0: write .* with no scheme, port or path"),
        ({"origins": ["*"]}, "origins.0: write"),
        ({"path": "tabkeeper/"}, "path"),
    ],
)
def test_settings_that_would_let_in_too_many_or_nobody_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said) as refused:
        parse_config({"platforms": {"web": {}}, "service": settings})
    assert "guessed" not in str(refused.value)


def test_tokens_are_long_and_only_their_hashes_are_kept():
    token = new_token()
    assert len(token) > 40
    settings = ServiceSettings.model_validate({"tokens": [*TOKENS, {"name": "ci", "token": token}]})
    assert token not in repr(settings) + settings.model_dump_json()
    assert hash_token(token).startswith("sha256:")
    for mistake in ({"hash": "md5:1"}, {}, {"hash": hash_token("x"), "token": token}, {"token": "short"}):
        with pytest.raises(ValueError):
            ServiceSettings.model_validate({"tokens": [{"name": "ci", **mistake}]})


async def test_tricks_with_paths_lead_nowhere_and_who_sends_a_request_too_slowly_is_hung_up_on():
    settings = ServiceSettings.model_validate({"tokens": TOKENS, "port": 0, "header_timeout": "300ms"})
    pool = SessionPool(parse_config({"ledger": {"url": "sqlite://"}}), jobs=False)
    async with serving(create_app(pool, settings), settings) as url:
        port = int(url.rpartition(":")[2])

        async def talk(*words: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for word in words:
                    writer.write(word)
                    await writer.drain()
                    await asyncio.sleep(0.05 if len(words) > 1 else 0)
                async with asyncio.timeout(20):
                    try:
                        return await reader.read()
                    except ConnectionResetError:
                        return b""
            finally:
                writer.close()

        for trick in (
            "/assets/../sessions", "/assets/..%2fsessions", "/assets/%2e%2e/%2e%2e/etc/passwd", "//sessions",
            "/health/../sessions", "/health%2f..%2fsessions", "/health/..;/sessions", "http://127.0.0.1/sessions",
            "/sessions%00", "/./sessions", "/login/../sessions", "/assets/app.js/../../app.py", "/openapi.json/../now",
        ):  # fmt: skip
            told = await talk(
                f"GET {trick} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            # Nothing at all, if this machine was so busy that the request seemed slow.
            assert told.partition(b" ")[2][:3] in {b"400", b"401", b"404", b""}, (trick, told)
        head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {MAIN}\r\n".encode()
        assert await talk(b"GET /sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ") == b""
        answered = await talk(b"GET /sessions HTTP/1.1\r\nConnection: close\r\n" + head + b"\r\n")
        assert json.loads(answered.partition(b"\r\n\r\n")[2]) == []
        then_slow = await talk(b"GET /sessions HTTP/1.1\r\n" + head + b"\r\n", b"GET /sess")
        assert then_slow.count(b"HTTP/1.1 200") == 1
        body = await talk(b"POST /leases HTTP/1.1\r\nContent-Length: 9\r\n" + head + b"\r\n", b"{")
        assert b" 408 " in body.partition(b"\r\n")[0]
