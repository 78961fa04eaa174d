"""What a user can set of alerts: ``[alerts]`` and ``[[alerts.webhooks]]``."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from tabkeeper.config.values import Duration, Name, Settings


class WebhookSettings(Settings):
    """An address that is sent every alert, signed if there is a secret."""

    name: Name = Field(description="What has been delivered is remembered under this name.")
    url: SecretStr = Field(description='Where to POST; such addresses are often secret: "env:OPS_WEBHOOK".')
    secret: SecretStr | None = Field(
        None, description="Signs each message (HMAC-SHA256, header Tabkeeper-Signature)."
    )
    format: Literal["json", "slack"] = Field(
        "json", description="json: every field of the alert; slack: what Slack and its kin show as a message."
    )
    kinds: tuple[str, ...] = Field((), description="Only alerts of these kinds; all if empty.")
    reports: bool = Field(
        default=False, description="Whether a daily_report carries the whole report (format json only)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = urlsplit(self.url.get_secret_value())
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url: must be the http or https address of the webhook")
        return self


class AlertSettings(Settings):
    """When to raise an alert, and where it goes. Alerts of budgets are raised by their own thresholds."""

    creation_failures: float = Field(
        0.05, gt=0, le=1, description="Share of creations that fail before an alert is raised."
    )
    least_creations: int = Field(
        10, ge=1, description="Creations in a window below which their failures are not judged."
    )
    unhealthy: float = Field(0.2, gt=0, le=1, description="Share of sessions that are unhealthy.")
    queue_wait: Duration = Field(timedelta(seconds=30), description="A request waited longer than this.")
    forecast: bool = Field(default=True, description="Whether a forecast over a budget's limit is an alert.")
    daily_report: bool = Field(
        default=False,
        description="Whether each day's report is an alert, too (kind daily_report), in one line.",
    )
    window: Duration = Field(
        timedelta(hours=1), description="What these are measured over; each is told at most once in it."
    )
    hooks: tuple[str, ...] = Field(
        (), description='Functions to call with each alert, as "package.module:function".'
    )
    log: bool = Field(default=True, description="Whether alerts are logged, too.")
    webhooks: tuple[WebhookSettings, ...] = ()
    attempts: int = Field(12, ge=1, description="Failed deliveries after which a channel gives an alert up.")
    retry_base: Duration = Field(
        timedelta(seconds=5), description="First pause after a failed delivery; doubles."
    )
    retry_max: Duration = Field(timedelta(hours=1), description="Longest pause between deliveries.")
    keep: Duration = Field(
        timedelta(days=7), description="An alert older than this is not delivered any more."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [hook.name for hook in self.webhooks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"webhooks: {name!r} is used twice")
        for hook in self.hooks:
            module, colon, function = hook.partition(":")
            if not (module and colon and function):
                raise ValueError(f'hooks: write {hook!r} as "package.module:function"')
        return self
