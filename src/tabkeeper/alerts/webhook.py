"""Sends alerts by HTTP: signed, in a form of our own or in Slack's. When to try again is decided elsewhere."""

from __future__ import annotations

import hashlib
import hmac
import json
from email.utils import parsedate_to_datetime

import httpx

from tabkeeper.alerts.alert import Alert
from tabkeeper.alerts.channel import DeliveryError
from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import WebhookSettings

SIGNATURE = "Tabkeeper-Signature"
"""Header ``t=<seconds since 1970>,v1=<hex>``: HMAC-SHA256 of ``<t>.<body>`` under the webhook's secret."""
_TIMEOUT = 10.0
_MARKS = {
    "info": "\N{INFORMATION SOURCE}",
    "warning": "\N{WARNING SIGN}",
    "critical": "\N{POLICE CARS REVOLVING LIGHT}",
}


class Webhook:
    """One address; see `alerts.channel.Channel`."""

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        clock: Clock | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = f"webhook:{settings.name}"
        self._settings = settings
        self._clock = clock or SystemClock()
        self._transport = transport

    def wants(self, alert: Alert) -> bool:
        """See `Channel.wants`."""
        return not self._settings.kinds or alert.kind in self._settings.kinds

    async def send(self, alert: Alert) -> None:
        """See `Channel.send`. The address, often a secret in itself, is in no error."""
        body = body_of(alert, self._settings.format, reports=self._settings.reports)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": alert.key,
            "User-Agent": "tabkeeper",
        }
        if self._settings.secret is not None:
            at = int(self._clock.now().timestamp())
            headers[SIGNATURE] = sign(body, self._settings.secret.get_secret_value(), at)
        try:
            async with httpx.AsyncClient(transport=self._transport, timeout=_TIMEOUT) as client:
                answer = await client.post(
                    self._settings.url.get_secret_value(), content=body, headers=headers
                )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DeliveryError(f"no answer: {type(error).__name__}") from None
        if not answer.is_success:
            raise DeliveryError(f"answered {answer.status_code}", again_in=self._wait(answer))

    def _wait(self, answer: httpx.Response) -> float | None:
        said = answer.headers.get("Retry-After", "")
        if said.isdecimal():
            return float(said)
        try:
            return max(0.0, (parsedate_to_datetime(said) - self._clock.now()).total_seconds())
        except (ValueError, TypeError):
            return None


def body_of(alert: Alert, form: str, *, reports: bool = False) -> bytes:
    """Return what is sent; a report only to those who asked for it."""
    if form == "slack":
        message = {"text": f"{_MARKS[alert.severity]} *{alert.title}*\n{alert.text}"}
        return json.dumps(message, ensure_ascii=False).encode()
    return alert.model_dump_json(exclude=None if reports and alert.report else {"report"}).encode()


def sign(body: bytes, secret: str, at: int) -> str:
    """Return the value of the signature header, for whoever sends and for whoever checks.

    >>> sign(b"{}", "secret", 1700000000)
    't=1700000000,v1=0ab7ca1d0f4e5e6ff0a4b1f4c4a94e3b'
    """
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={digest.hexdigest()}"
