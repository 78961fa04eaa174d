"""Which hosts only watch visitors: the list behind `block = ["trackers"]`. Short, well known, matched by suffix."""

from __future__ import annotations

from urllib.parse import urlsplit

TRACKERS = frozenset(
    {
        "adnxs.com",
        "adsrvr.org",
        "amplitude.com",
        "bat.bing.com",
        "chartbeat.com",
        "clarity.ms",
        "connect.facebook.net",
        "criteo.com",
        "criteo.net",
        "doubleclick.net",
        "fullstory.com",
        "google-analytics.com",
        "googleadservices.com",
        "googlesyndication.com",
        "googletagmanager.com",
        "googletagservices.com",
        "heapanalytics.com",
        "hotjar.com",
        "hs-analytics.net",
        "mixpanel.com",
        "mouseflow.com",
        "newrelic.com",
        "nr-data.net",
        "optimizely.com",
        "outbrain.com",
        "pardot.com",
        "px.ads.linkedin.com",
        "quantserve.com",
        "scorecardresearch.com",
        "segment.com",
        "segment.io",
        "snap.licdn.com",
        "taboola.com",
        "yandex-metrica.com",
        "mc.yandex.ru",
    }
)


def is_tracker(url: str) -> bool:
    """Say whether the URL's host, or a domain above it, is on the list.

    >>> is_tracker("https://www.google-analytics.com/collect?v=1")
    True
    >>> is_tracker("https://example.com/google-analytics.com")
    False
    """
    labels = (urlsplit(url).hostname or "").split(".")
    return any(".".join(labels[i:]) in TRACKERS for i in range(len(labels) - 1))
