"""OpenTelemetry spans around what takes time at others: waiting for a lease, creating, connecting, closing.

Without `tabkeeper[otel]` there are none; with it, there are if the program has set up a tracer provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec

from tabkeeper.pool.model import Session

Tell = Callable[..., None]
"""Called with attributes as keywords."""

_CAN_TRACE = find_spec("opentelemetry") is not None and find_spec("opentelemetry.trace") is not None


def span(name: str, **attributes: str | int) -> AbstractContextManager[Tell]:
    """Trace a block as ``tabkeeper.<name>``, with attributes ``tabkeeper.<key>``; gives what tells more of them.

    If the block fails, the span tells the error's kind, and none of its words.
    """
    return _traced(name, attributes, apart=False)


def session_span(name: str, session: Session) -> AbstractContextManager[Tell]:
    """Trace what is done to a session, for no lease in particular: a root, linked to the span that brought it about."""
    about: dict[str, str | int] = {
        "session": session.id,
        "platform": session.lane.platform,
        "provider": session.provider,
        "tenant": session.tenant,
    }
    return _traced(name, about, apart=True)


@contextmanager
def _traced(name: str, attributes: dict[str, str | int], *, apart: bool) -> Iterator[Tell]:
    if not _CAN_TRACE:
        yield _tell_nobody
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Status, StatusCode, get_current_span, get_tracer

    cause = get_current_span().get_span_context()
    with get_tracer("tabkeeper").start_as_current_span(
        f"tabkeeper.{name}",
        context=Context() if apart else None,
        links=[Link(cause)] if apart and cause.is_valid else None,
        attributes=_named(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as running:

        def tell(**more: str | int) -> None:
            running.set_attributes(_named(more))

        try:
            yield tell
        except BaseException as error:
            running.set_status(Status(StatusCode.ERROR, type(error).__name__))
            running.set_attribute("error.type", type(error).__name__)
            raise


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"tabkeeper.{key}": value for key, value in attributes.items()}


def _tell_nobody(**_: str | int) -> None:
    """Take what would be told if anybody traced."""
