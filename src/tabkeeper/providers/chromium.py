"""Finding a Chromium on this machine and the command line it is started with; starts no session.

The order of search and every flag are here and nowhere else.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import ConfigError
from tabkeeper.providers.base import ProxySpec

_log = logging.getLogger(__name__)

_COMMANDS = ("chromium", "google-chrome-stable", "google-chrome", "chrome", "chromium-browser")
_MAC_APPS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
_DOWNLOADS = (
    "chrome-linux*/chrome",
    "chrome-mac*/*.app/Contents/MacOS/Chromium",
    "chrome-mac*/*.app/Contents/MacOS/Google Chrome for Testing",
)
SMALL_SHM_BYTES = 512 * 2**20
"""Chromium crashes on big pages when /dev/shm is full; Docker gives it 64 MB unless told otherwise."""

_ALWAYS = (
    "--remote-debugging-port=0",
    # A window nobody asked for costs a renderer and the time to start it.
    "--no-startup-window",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-service-autorun",
    # Nothing may talk to the network but the pages: it would be billed, and it would tell on us.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-client-side-phishing-detection",
    "--disable-field-trial-config",
    "--disable-sync",
    "--disable-breakpad",
    "--metrics-recording-only",
    "--no-pings",
    # Bytes are metered and blocked in the HTTP layer; QUIC goes around proxies.
    "--disable-quic",
    # Many contexts share a browser; a page in the background is somebody's foreground.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-hang-monitor",
    "--disable-ipc-flooding-protection",
    "--disable-prompt-on-repost",
    "--disable-popup-blocking",
    # No keyring, no sound, no extensions of the desktop user.
    "--password-store=basic",
    "--use-mock-keychain",
    "--mute-audio",
    "--disable-extensions",
    "--hide-scrollbars",
)
_FEATURES_OFF = (
    "Translate",
    "MediaRouter",
    "OptimizationHints",
    "InterestFeedContentSuggestions",
    "AutofillServerCommunication",
    "LensOverlay",
    # A page asked for by http would be asked for by https first, and waited for.
    "HttpsUpgrades",
    # Suggestions below an address bar that nobody sees: two pages and a renderer of their own in each window, which
    # made a context cost three times as much (0.7 s of a processor and 40 MB more, Chromium 156).
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
)
_OURS = ("--user-data-dir", "--remote-debugging-", "--headless")


def find_browser(provider: str, settings: ProviderSettings, environ: Mapping[str, str] | None = None) -> Path:
    """Return the browser to start.

    Looks at `executable_path`, then TABKEEPER_CHROMIUM, then what ``playwright install chromium`` downloaded,
    then Chromium or Chrome on PATH.

    Raises:
        ConfigError: there is none; the message names the command that installs one.
    """
    env = os.environ if environ is None else environ
    named = (
        (f"providers.{provider}.executable_path", settings.executable_path),
        ("TABKEEPER_CHROMIUM", Path(env["TABKEEPER_CHROMIUM"]) if env.get("TABKEEPER_CHROMIUM") else None),
    )
    for key, path in named:
        if path is not None:
            found = path.expanduser()
            if not found.is_file() or not os.access(found, os.X_OK):
                raise ConfigError(f"{key}: {found} is not a program that can be started")
            return found.absolute()
    downloaded = _downloaded(env)
    if downloaded is not None:
        return downloaded
    for command in _COMMANDS:
        on_path = shutil.which(command, path=env.get("PATH", os.defpath))
        if on_path is not None:
            return Path(on_path)
    for app in _MAC_APPS if sys.platform == "darwin" else ():
        if Path(app).is_file():
            return Path(app)
    raise ConfigError(
        f"provider {provider!r} needs Chromium and there is none on this machine; install it with "
        "`playwright install chromium` (or `apt-get install chromium`), "
        f"or set providers.{provider}.executable_path"
    )


def _downloaded(env: Mapping[str, str]) -> Path | None:
    """Return the newest Chromium that Playwright has downloaded completely."""
    folder = env.get("PLAYWRIGHT_BROWSERS_PATH")
    home = Path(env.get("HOME") or "/nonexistent")
    if folder == "0":
        import playwright

        base = Path(playwright.__file__).parent / "driver" / "package" / ".local-browsers"
    elif folder:
        base = Path(folder)
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches" / "ms-playwright"
    else:
        base = Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "ms-playwright"
    found: list[tuple[int, Path]] = []
    for download in base.glob("chromium-*"):
        revision = download.name.removeprefix("chromium-")
        if revision.isdecimal() and (download / "INSTALLATION_COMPLETE").exists():
            found += [
                (int(revision), path)
                for pattern in _DOWNLOADS
                for path in download.glob(pattern)
                if os.access(path, os.X_OK)
            ]
    return max(found)[1] if found else None


def sandboxed(settings: ProviderSettings) -> bool:
    """Say whether Chromium's sandbox will be on: as asked, but never for root, where Chromium refuses to start."""
    return settings.sandbox and os.geteuid() != 0


def shared_memory_bytes() -> int | None:
    """Return the size of /dev/shm, or None where there is none (macOS)."""
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108
    except OSError:
        return None
    return found.f_frsize * found.f_blocks


def flags(provider: str, settings: ProviderSettings) -> list[str]:
    """Return the command line flags, without the data directory.

    Raises:
        ConfigError: `args` sets a flag that Tabkeeper needs for itself.
    """
    own = []
    features = list(_FEATURES_OFF)
    for arg in settings.args:
        if arg.startswith(_OURS):
            raise ConfigError(f"providers.{provider}.args: {arg} is set by Tabkeeper itself; remove it")
        if arg.startswith("--disable-features="):
            # The last one would win; people mean both.
            features += arg.removeprefix("--disable-features=").split(",")
        else:
            own.append(arg)
    out = [*_ALWAYS, f"--disable-features={','.join(features)}"]
    if settings.headless:
        out.append("--headless=new")
    if not sandboxed(settings):
        out.append("--no-sandbox")
        if settings.sandbox:
            _log.warning(
                "provider %r: running as root, so Chromium's sandbox is off; run as another user to have it",
                provider,
            )
    shm = shared_memory_bytes()
    if shm is not None and shm < SMALL_SHM_BYTES:
        out.append("--disable-dev-shm-usage")
    return out + own


def proxy_flags(proxy: ProxySpec | None) -> list[str]:
    """Return the flags that send a whole browser through a proxy, pages of this machine included.

    They cannot hold a user name and password: contexts are told those.
    """
    if proxy is None:
        return []
    return [f"--proxy-server={proxy.server}", "--proxy-bypass-list=<-loopback>"]


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the browser: ours without our own settings, which may hold keys."""
    env = os.environ if environ is None else environ
    return {key: value for key, value in env.items() if not key.startswith("TABKEEPER_")}


def version(executable: Path, *, seconds: float = 10.0) -> str:
    """Ask a browser for its version, such as ``142.0.7444.175``. Blocks for some tens of milliseconds.

    Raises:
        ConfigError: it cannot be started or does not say.
    """
    try:
        done = subprocess.run(  # noqa: S603
            [executable, "--version"],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{executable} --version failed: {error}") from None
    found = re.search(r"\d+(?:\.\d+)+", done.stdout)
    if found is None:
        raise ConfigError(
            f"{executable} --version did not tell a version; it said: {last_words(done.stderr)}"
        )
    return found[0]


def last_words(stderr: str, count: int = 6) -> str:
    """Return the end of what a browser wrote to its standard error, fit for one message."""
    # Every container without a desktop complains of dbus, which explains nothing and pushes out what does; and
    # whoever knows the DevTools address may drive the browser, so it must not be in a log.
    lines = [line.strip() for line in stderr.splitlines()]
    told = [line for line in lines if line and "dbus" not in line and "DevTools listening" not in line]
    return " | ".join(told[-count:]) or "(nothing)"
