"""OpenTelemetry spans around what takes time at others: waiting for a lease, creating, connecting, closing.

Without `tabkeeper[otel]` there are none; with it, there are if the program has set up a tracer provider.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

_CAN_TRACE = find_spec("opentelemetry") is not None and find_spec("opentelemetry.trace") is not None


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """Trace a block as ``tabkeeper.<name>``; if it fails, the span tells the error's kind, and none of its words."""
    if not _CAN_TRACE:
        yield
        return
    from opentelemetry.trace import Status, StatusCode, get_tracer

    with get_tracer("tabkeeper").start_as_current_span(
        f"tabkeeper.{name}",
        attributes={f"tabkeeper.{key}": value for key, value in attributes.items()},
        record_exception=False,
        set_status_on_exception=False,
    ) as running:
        try:
            yield
        except BaseException as error:
            running.set_status(Status(StatusCode.ERROR, type(error).__name__))
            running.set_attribute("error.type", type(error).__name__)
            raise
