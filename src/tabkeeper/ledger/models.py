"""The tables of the ledger: rows, and nothing else; domain values are in `types`.

Money is BIGINT nano-dollars (``*_n``), instants are BIGINT microseconds since 1970 UTC (``*_at``), lengths of
time BIGINT microseconds (``*_us``), JSON is text: so both databases count alike and to the last unit.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, MetaData, Text, UniqueConstraint, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

NAMING = {
    "ix": "ix_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)
_registry = registry(metadata=metadata)

# SQLite gives out row numbers only to columns that are spelt INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")


def _key(foreign: str | None = None) -> Any:
    return (
        Field(sa_type=Text, primary_key=True, foreign_key=foreign)
        if foreign
        else Field(sa_type=Text, primary_key=True)
    )


def _serial() -> Any:
    return Field(default=None, primary_key=True, sa_type=_Serial)


def _number(default: int | None = 0, *, key: bool = False) -> Any:
    if key:
        return Field(sa_type=BigInteger, primary_key=True)
    return Field(default=default, sa_type=BigInteger, sa_column_kwargs={"server_default": text(str(default))})


def _instant(*, optional: bool = False) -> Any:
    return Field(default=None, sa_type=BigInteger) if optional else Field(sa_type=BigInteger)


def _text(default: str | None = None, *, foreign: str | None = None) -> Any:
    if default is None:
        return Field(sa_type=Text, foreign_key=foreign) if foreign else Field(sa_type=Text)
    return Field(default=default, sa_type=Text, sa_column_kwargs={"server_default": text(f"'{default}'")})


def _maybe(*, foreign: str | None = None) -> Any:
    return (
        Field(default=None, sa_type=Text, foreign_key=foreign)
        if foreign
        else Field(default=None, sa_type=Text)
    )


def _ref(foreign: str, *, key: bool = False) -> Any:
    return Field(sa_type=BigInteger, foreign_key=foreign, primary_key=key)


class Table(SQLModel, registry=_registry):
    """Base of all tables, with metadata of their own."""


class LedgerMetaRow(Table, table=True):
    """Facts about the ledger itself: ``currency``, ``asset_scale``, ``created_at``, ``epoch``.

    ``epoch`` counts changes of budgets, so that other processes notice them.
    """

    __tablename__: ClassVar[Any] = "ledger_meta"
    key: str = _key()
    value: str = _text()


class ProcessRow(Table, table=True):
    """One opened ledger: who may own sessions, and whether it still lives."""

    __tablename__: ClassVar[Any] = "process"
    id: str = _key()
    host: str = _text()
    pid: int = _number()
    pid_started_at: int = _instant()
    started_at: int = _instant()
    heartbeat_at: int = _instant()
    ended_at: int | None = _instant(optional=True)
    snapshot: str = _text("{}")
    """JSON object: what this process last told about its queue."""


class RateCardRow(Table, table=True):
    """A price list as it was in force for a provider; `document` is `RateCard.to_json`.

    A change of prices closes the row (`effective_to`) and opens the next; running sessions keep theirs.
    """

    __tablename__: ClassVar[Any] = "rate_card"
    __table_args__: ClassVar[Any] = (
        Index(
            "uq_rate_card_current",
            "provider",
            unique=True,
            sqlite_where=text("effective_to IS NULL"),
            postgresql_where=text("effective_to IS NULL"),
        ),
        CheckConstraint("effective_to IS NULL OR effective_to > effective_from", name="lasts"),
    )
    id: int | None = _serial()
    provider: str = _text()
    plan: str = _text()
    effective_from: int = _instant()
    effective_to: int | None = _instant(optional=True)
    fingerprint: str = _text()
    source: str = _text("")
    document: str = _text()
    imported_at: int = _instant()


class RateComponentRow(Table, table=True):
    """One price of a list, readable by SQL; `unit_price` is exact decimal text."""

    __tablename__: ClassVar[Any] = "rate_component"
    rate_card_id: int = _ref("rate_card.id", key=True)
    kind: str = _key()
    unit: str = _text()
    unit_price: str = _text()
    per_qty: int = _number(1)
    increment_qty: int = _number(1)
    min_qty: int = _number()
    included_qty: int = _number()
    cap_qty: int | None = Field(default=None, sa_type=BigInteger)


class AllowanceRow(Table, table=True):
    """What a plan includes in a calendar month (UTC), and how much of it is used."""

    __tablename__: ClassVar[Any] = "allowance"
    provider: str = _key()
    plan: str = _key()
    kind: str = _key()
    month_at: int = _number(key=True)
    used_qty: int = _number()


class BudgetRow(Table, table=True):
    """One version of a budget; a change closes it (`effective_to`) and opens the next."""

    __tablename__: ClassVar[Any] = "budget"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("name", "version"),
        Index(
            "uq_budget_current",
            "name",
            unique=True,
            sqlite_where=text("effective_to IS NULL"),
            postgresql_where=text("effective_to IS NULL"),
        ),
        CheckConstraint("mode IN ('hard', 'soft')", name="mode"),
        CheckConstraint("scope_kind IN ('pool', 'platform', 'provider', 'tenant')", name="scope"),
    )
    id: int | None = _serial()
    name: str = _text()
    version: int = _number(1)
    scope_kind: str = _text()
    scope_value: str = _text("")
    period: str = _text()
    timezone: str = _text()
    mode: str = _text()
    limit_n: int = _number()
    thresholds: str = _text("[]")
    """JSON list of millionths of the limit."""
    on_exceed: str = _text("deny")
    effective_from: int = _instant()
    effective_to: int | None = _instant(optional=True)


class BudgetWindowRow(Table, table=True):
    """One window of a budget: the only balance there is, changed only together with a posting.

    Mode and limit are copies of the budget's, so that the row that is locked decides by itself.
    """

    __tablename__: ClassVar[Any] = "budget_window"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("budget_id", "start_at"),
        CheckConstraint("end_at > start_at", name="lasts"),
        CheckConstraint("held_n >= 0", name="held"),
        Index("ix_budget_window_start_at", "start_at"),
    )
    id: int | None = _serial()
    budget_id: int = _ref("budget.id")
    start_at: int = _instant()
    end_at: int = _instant()
    label: str = _text()
    mode: str = _text()
    limit_n: int = _number()
    held_n: int = _number()
    """Worst cases of sessions that still run."""
    spent_n: int = _number()
    """Settled costs."""
    forced_n: int = _number()
    """What came in without being admitted: costs beyond a hold, a limit lowered under what was spent."""
    denied: int = _number()
    """Sessions refused."""


class WindowThresholdRow(Table, table=True):
    """An amount at which a window's alert is due."""

    __tablename__: ClassVar[Any] = "window_threshold"
    window_id: int = _ref("budget_window.id", key=True)
    share_ppm: int = _number(key=True)
    amount_n: int = _number()


class BoardHeadRow(Table, table=True):
    """The end of a shared board's log; updating it is the lock that puts entries in order."""

    __tablename__: ClassVar[Any] = "board_head"
    board: str = _key()
    seq: int = _number()
    at: int = _instant()
    shift: int = _number()
    """Microseconds by which the board's time differs from the database's clock since that was set anew."""


class BoardEntryRow(Table, table=True):
    """What a process told a shared board at one instant; `events` is JSON."""

    __tablename__: ClassVar[Any] = "board_entry"
    __table_args__: ClassVar[Any] = (UniqueConstraint("board", "nonce"),)
    board: str = _key()
    seq: int = _number(None, key=True)
    at: int = _instant()
    home: int = _number()
    nonce: str = _text()
    seen_seq: int = _number()
    seen_sum: int = _number()
    events: str = _text()


class BoardSnapshotRow(Table, table=True):
    """The whole state of a shared board after an entry, as JSON."""

    __tablename__: ClassVar[Any] = "board_snapshot"
    board: str = _key()
    seq: int = _number(None, key=True)
    planner: str = _text()
    document: str = _text()


class BoardMemberRow(Table, table=True):
    """A process that takes part in a shared board; `beats` grows while it lives."""

    __tablename__: ClassVar[Any] = "board_member"
    board: str = _key()
    home: int = _number(None, key=True)
    process_id: str = _text()
    host: str = _text()
    planner: str = _text()
    beats: int = _number()
    joined_at: int = _instant()


class SessionRow(Table, table=True):
    """One browser session in its whole life."""

    __tablename__: ClassVar[Any] = "session"
    __table_args__: ClassVar[Any] = (
        Index("ix_session_created_at", "created_at"),
        Index(
            "ix_session_open",
            "process_id",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )
    id: str = _key()
    platform: str = _text()
    provider: str = _text()
    tenant: str = _text()
    process_id: str = _text(foreign="process.id")
    state: str = _text("creating")
    provider_session_id: str | None = _maybe()
    pid: int | None = Field(default=None, sa_type=BigInteger)
    pid_started_at: int | None = _instant(optional=True)
    created_at: int = _instant()
    active_at: int | None = _instant(optional=True)
    ended_at: int | None = _instant(optional=True)
    expires_at: int = _instant()
    close_reason: str | None = _maybe()
    uses: int = _number()
    failures: int = _number()
    cost_n: int = _number()
    idle_n: int = _number()
    rounding_n: int = _number()
    seconds_us: int = _number()
    quality: str | None = _maybe()
    bytes: int = _number()
    rate_card_id: int | None = Field(default=None, sa_type=BigInteger, foreign_key="rate_card.id")
    connect_sealed: str | None = _maybe()
    """Where it is reached, sealed by the vault; None without keys, and once it is over."""
    identity: str | None = _maybe()
    """Keyed hash of whose account is logged in; None if it is nobody's."""


class SessionEventRow(Table, table=True):
    """A session moved from one state to another."""

    __tablename__: ClassVar[Any] = "session_event"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("session_id", "at", "old", "new"),
        Index("ix_session_event_session_id", "session_id"),
    )
    id: int | None = _serial()
    session_id: str = _text()
    at: int = _instant()
    old: str = _text()
    new: str = _text()
    reason: str = _text("")


class LeaseRow(Table, table=True):
    """The usage log: one row for each lease; `cost_n` is its share, known when the session is settled."""

    __tablename__: ClassVar[Any] = "lease"
    __table_args__: ClassVar[Any] = (
        Index("ix_lease_session_id", "session_id"),
        Index("ix_lease_granted_at", "granted_at"),
    )
    id: str = _key()
    session_id: str = _text()
    use_number: int = _number()
    platform: str = _text()
    provider: str = _text()
    tenant: str = _text()
    priority: int = _number()
    requested_at: int = _instant()
    granted_at: int = _instant()
    released_at: int = _instant()
    waited_us: int = _number()
    start_age_us: int = _number()
    end_age_us: int = _number()
    is_new: int = _number()
    outcome: str = _text()
    error: str | None = _maybe()
    bytes: int = _number()
    place: str | None = _maybe()
    tags: str = _text("{}")
    cost_n: int = _number()


class HoldRow(Table, table=True):
    """Money set aside for a session; resolved at most once."""

    __tablename__: ClassVar[Any] = "hold"
    __table_args__: ClassVar[Any] = (
        Index(
            "ix_hold_open",
            "expires_at",
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        CheckConstraint("state IN ('open', 'settled', 'voided')", name="state"),
        CheckConstraint("amount_n >= 0", name="amount"),
    )
    session_id: str = _key("session.id")
    payload_hash: str = _text()
    rate_card_id: int = _ref("rate_card.id")
    amount_n: int = _number()
    max_us: int = _number()
    state: str = _text("open")
    held_at: int = _instant()
    expires_at: int = _instant()
    resolved_at: int | None = _instant(optional=True)


class EntryRow(Table, table=True):
    """Append-only journal. `amount_n` is cost booked; a hold, a void and a change of limit book none."""

    __tablename__: ClassVar[Any] = "entry"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("idem_key"),
        Index("ix_entry_session_id_kind", "session_id", "kind"),
        Index("ix_entry_effective_at", "effective_at"),
        Index(
            "ix_entry_adjusted",
            "effective_at",
            sqlite_where=text("kind = 'adjust'"),
            postgresql_where=text("kind = 'adjust'"),
        ),
        CheckConstraint("kind IN ('hold', 'settle', 'void', 'limit', 'adjust')", name="kind"),
    )
    id: int | None = _serial()
    idem_key: str = _text()
    payload_hash: str = _text()
    kind: str = _text()
    session_id: str | None = _maybe(foreign="session.id")
    amount_n: int = _number()
    effective_at: int = _instant()
    """The instant whose windows and hour it counts in: that of the hold."""
    recorded_at: int = _instant()
    quality: str = _text("measured")
    reason: str = _text("")
    corrects_id: int | None = Field(default=None, sa_type=BigInteger, foreign_key="entry.id")


class EntryLineRow(Table, table=True):
    """Append-only: what an entry's amount is made of; `raw_qty` was used, `billed_qty` is charged."""

    __tablename__: ClassVar[Any] = "entry_line"
    entry_id: int = _ref("entry.id", key=True)
    kind: str = _key()
    raw_qty: int = _number()
    billed_qty: int = _number()
    included_qty: int = _number()
    amount_n: int = _number()


class EntryShareRow(Table, table=True):
    """Append-only: whose cost an adjustment changed, and by how much; together they are the entry's amount."""

    __tablename__: ClassVar[Any] = "entry_share"
    entry_id: int = _ref("entry.id", key=True)
    lease_id: str = _key()
    """Empty for the session's own part: idle cost, rounding, length of life."""
    cost_n: int = _number()
    rounding_n: int = _number()
    seconds_us: int = _number()


class PostingRow(Table, table=True):
    """Append-only: what an entry did to a window; every balance is a column sum of these."""

    __tablename__: ClassVar[Any] = "posting"
    __table_args__: ClassVar[Any] = (Index("ix_posting_window_id", "window_id"),)
    entry_id: int = _ref("entry.id", key=True)
    window_id: int = _ref("budget_window.id", key=True)
    d_held_n: int = _number()
    d_spent_n: int = _number()
    d_forced_n: int = _number()


class RollupHourRow(Table, table=True):
    """Sums of settled sessions by the (UTC) hour of their hold; leases count for their own tenant."""

    __tablename__: ClassVar[Any] = "rollup_hour"
    hour_at: int = _number(key=True)
    provider: str = _key()
    platform: str = _key()
    tenant: str = _key()
    cost_n: int = _number()
    idle_n: int = _number()
    """Part of `cost_n` that no lease used."""
    rounding_n: int = _number()
    """Part of `cost_n` owed to increments and minimums; on the session's tenant."""
    failed_n: int = _number()
    """Shares of leases that did not end well, and idle cost of sessions that failed."""
    sessions: int = _number()
    failed_sessions: int = _number()
    leases: int = _number()
    reused: int = _number()
    failures: int = _number()
    session_us: int = _number()
    leased_us: int = _number()
    waited_us: int = _number()
    bytes: int = _number()


class RollupLineRow(Table, table=True):
    """Sums of settled sessions' lines by hour and component; on the session's tenant."""

    __tablename__: ClassVar[Any] = "rollup_line"
    hour_at: int = _number(key=True)
    provider: str = _key()
    platform: str = _key()
    tenant: str = _key()
    kind: str = _key()
    amount_n: int = _number()
    raw_qty: int = _number()
    billed_qty: int = _number()
    included_qty: int = _number()


class RollupDayRow(Table, table=True):
    """The hourly sums added up by UTC day, so that a month is read from days and the hours at its ends."""

    __tablename__: ClassVar[Any] = "rollup_day"
    day_at: int = _number(key=True)
    provider: str = _key()
    platform: str = _key()
    tenant: str = _key()
    cost_n: int = _number()
    idle_n: int = _number()
    rounding_n: int = _number()
    failed_n: int = _number()
    sessions: int = _number()
    failed_sessions: int = _number()
    leases: int = _number()
    reused: int = _number()
    failures: int = _number()
    session_us: int = _number()
    leased_us: int = _number()
    waited_us: int = _number()
    bytes: int = _number()


class RollupDayLineRow(Table, table=True):
    """The hourly sums of lines added up by UTC day."""

    __tablename__: ClassVar[Any] = "rollup_day_line"
    day_at: int = _number(key=True)
    provider: str = _key()
    platform: str = _key()
    tenant: str = _key()
    kind: str = _key()
    amount_n: int = _number()
    raw_qty: int = _number()
    billed_qty: int = _number()
    included_qty: int = _number()


class AlertEventRow(Table, table=True):
    """Something somebody should hear of, written with its cause; sending it comes later."""

    __tablename__: ClassVar[Any] = "alert_event"
    __table_args__: ClassVar[Any] = (UniqueConstraint("dedupe_key"), Index("ix_alert_event_at", "at"))
    id: int | None = _serial()
    dedupe_key: str = _text()
    kind: str = _text()
    """threshold, denied, overrun, estimate, leak ...; what people read of each is in `alerts.alert`."""
    at: int = _instant()
    budget: str | None = _maybe()
    window_id: int | None = Field(default=None, sa_type=BigInteger, foreign_key="budget_window.id")
    metric: str | None = _maybe()
    """spent, or committed (spent and held)."""
    share_ppm: int | None = Field(default=None, sa_type=BigInteger)
    amount_n: int = _number()
    limit_n: int | None = Field(default=None, sa_type=BigInteger)
    session_id: str | None = _maybe()
    detail: str = _text("")


class AlertChannelRow(Table, table=True):
    """Where alerts go; a channel hears of nothing that happened before it was first known."""

    __tablename__: ClassVar[Any] = "alert_channel"
    name: str = _key()
    since: int = _instant()


class AlertDeliveryRow(Table, table=True):
    """How far one alert has come on one channel; until `next_at` it belongs to who claimed it."""

    __tablename__: ClassVar[Any] = "alert_delivery"
    event_id: int = _ref("alert_event.id", key=True)
    channel: str = _key("alert_channel.name")
    state: str = _text("pending")
    """pending, delivered or dead."""
    attempts: int = _number()
    next_at: int = _number()
    last_error: str = _text("")
    delivered_at: int | None = _instant(optional=True)


class ReleaseOutboxRow(Table, table=True):
    """A session whose end its provider has not confirmed; gone over until it has."""

    __tablename__: ClassVar[Any] = "release_outbox"
    session_id: str = _key("session.id")
    provider: str = _text()
    provider_session_id: str | None = _maybe()
    reason: str = _text("")
    queued_at: int = _instant()
    attempts: int = _number()
    next_at: int = _number()
    last_error: str | None = _maybe()
    confirmed_at: int | None = _instant(optional=True)


class ProfileRow(Table, table=True):
    """Saved browser state of a site behind a proxy, for one tenant; at most one of a kind is not retired."""

    __tablename__: ClassVar[Any] = "profile"
    __table_args__: ClassVar[Any] = (
        Index(
            "uq_profile_live",
            "tenant",
            "site",
            "proxy",
            unique=True,
            sqlite_where=text("retired_at IS NULL"),
            postgresql_where=text("retired_at IS NULL"),
        ),
        CheckConstraint("retired_at IS NULL OR sealed IS NULL", name="retired"),
    )
    id: str = _key()
    tenant: str = _text()
    site: str = _text()
    proxy: str = _text("")
    created_at: int = _instant()
    saved_at: int = _instant()
    succeeded_at: int | None = _instant(optional=True)
    failures: int = _number()
    """In a row."""
    uses: int = _number()
    retired_at: int | None = _instant(optional=True)
    retired_why: str = _text("")
    sealed: str | None = _maybe()
    """Cookies, storage, user agent, viewport: JSON sealed by the vault; forgotten when it is retired."""


class ProfileWriterRow(Table, table=True):
    """Which lease may write a profile, and until when."""

    __tablename__: ClassVar[Any] = "profile_writer"
    tenant: str = _key()
    site: str = _key()
    proxy: str = _key()
    holder: str = _text()
    expires_at: int = _instant()


class ReconRunRow(Table, table=True):
    """One look at one provider's figures, and what came of it."""

    __tablename__: ClassVar[Any] = "recon_run"
    __table_args__: ClassVar[Any] = (Index("ix_recon_run_at", "at"),)
    id: int | None = _serial()
    provider: str = _text()
    at: int = _instant()
    sessions: int = _number()
    """Sessions whose figures were there, and were compared."""
    waiting: int = _number()
    """Sessions whose figures were not."""
    ours_n: int = _number()
    """What was booked for those compared, before the look."""
    theirs_n: int = _number()
    adjusted: int = _number()
    """Entries written."""
    past: int = _number()
    """Differences past the tolerance."""
    error: str = _text("")


class ReconItemRow(Table, table=True):
    """How far the comparison of one session has come; written in the transaction that adjusts it."""

    __tablename__: ClassVar[Any] = "recon_item"
    __table_args__: ClassVar[Any] = (
        Index("ix_recon_item_state_next_at", "state", "next_at"),
        CheckConstraint("state IN ('waiting', 'compared', 'silent')", name="state"),
    )
    session_id: str = _key("session.id")
    provider: str = _text()
    state: str = _text("waiting")
    """waiting: its provider has no final figures yet; silent: it never told any."""
    attempts: int = _number()
    checked_at: int = _instant()
    next_at: int = _number()
    theirs_n: int = _number()
    """What the provider's figures come to, by the session's own price list."""
    said: str = _text("{}")
    """JSON: what the provider said, as it was priced."""


class DriftRow(Table, table=True):
    """A provider's state and ours disagree; one row for each thing, however often it is seen."""

    __tablename__: ClassVar[Any] = "drift"
    __table_args__: ClassVar[Any] = (UniqueConstraint("dedupe_key"), Index("ix_drift_last_at", "last_at"))
    id: int | None = _serial()
    dedupe_key: str = _text()
    provider: str = _text()
    kind: str = _text()
    """dead, ended, unlisted, refuses or stray; see `ledger.drift`."""
    session_id: str | None = _maybe()
    provider_session_id: str | None = _maybe()
    first_at: int = _instant()
    last_at: int = _instant()
    times: int = _number(1)
    detail: str = _text("")


class ProxyRow(Table, table=True):
    """A proxy that `tabkeeper proxies add` stored; those of the configuration have no row."""

    __tablename__: ClassVar[Any] = "proxy"
    id: str = _key()
    server: str = _text()
    """Its address without credentials."""
    credentials_env: str = _text("")
    """Environment variable that holds ``user:password``; empty if there is none."""
    credentials_sealed: str | None = _maybe()
    """User name and password, sealed by the vault; forgotten when it is retired."""
    kind: str = _text()
    geo: str = _text("")
    weight: int = _number(1)
    price_per_gb: str | None = _maybe()
    """Dollars for 10^9 bytes, as decimal text."""
    created_at: int = _instant()
    retired_at: int | None = _instant(optional=True)


class ProxyStateRow(Table, table=True):
    """How a proxy did, wherever it is described."""

    __tablename__: ClassVar[Any] = "proxy_state"
    proxy: str = _key()
    succeeded: int = _number()
    failed: int = _number()
    in_row: int = _number()
    """Failures in a row."""
    recent: str = _text("")
    """The last outcomes, oldest first: 1 worked, 0 failed."""
    latency_us: int | None = _instant(optional=True)
    last_error: str = _text("")
    resume_at: int = _number()


class ProxyBindingRow(Table, table=True):
    """Which proxy a session key has."""

    __tablename__: ClassVar[Any] = "proxy_binding"
    __table_args__: ClassVar[Any] = (Index("ix_proxy_binding_expires_at", "expires_at"),)
    key: str = _key()
    proxy: str = _text()
    created_at: int = _instant()
    expires_at: int = _instant()
    used_at: int = _instant()
    uses: int = _number()
    failovers: int = _number()


class SiteBlockRow(Table, table=True):
    """A proxy that a site refuses, and until when it is not used there."""

    __tablename__: ClassVar[Any] = "site_block"
    site: str = _key()
    proxy: str = _key()
    blocked_at: int = _instant()
    until: int = _instant()
    message: str = _text("")


class ReportRunRow(Table, table=True):
    """The report of one local day; whoever writes the row first has written it."""

    __tablename__: ClassVar[Any] = "report_run"
    __table_args__: ClassVar[Any] = (Index("ix_report_run_timezone_ends_at", "timezone", "ends_at"),)
    day: str = _key()
    """``2026-11-21``."""
    timezone: str = _key()
    ends_at: int = _instant()
    made_at: int = _instant()
    process_id: str = _text()
    report: str = _text()
    """JSON, as `reports.render_json` writes it."""


class RunRow(Table, table=True):
    """One run over sites; it is committed when all its pages are done, and open until then."""

    __tablename__: ClassVar[Any] = "run"
    __table_args__: ClassVar[Any] = (
        Index("ix_run_name_started_at", "name", "started_at"),
        CheckConstraint("state IN ('open', 'committed')", name="state"),
    )
    id: str = _key()
    name: str = _text()
    state: str = _text("open")
    owner: str = _text()
    """The process that works on it, or did; whoever is not it changes nothing."""
    sites: str = _text("[]")
    """JSON list of domains."""
    max_cost_n: int | None = Field(default=None, sa_type=BigInteger)
    started_at: int = _instant()
    ended_at: int | None = _instant(optional=True)
    items: int = _number()
    outlet: str = _text("")
    """Where items are written to, and how far that has come: items, and bytes of a file."""
    outlet_items: int = _number()
    outlet_bytes: int = _number()


class RunPageRow(Table, table=True):
    """A page of a run; what it gave is written in the transaction that calls it done."""

    __tablename__: ClassVar[Any] = "run_page"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("run_id", "url"),
        CheckConstraint("state IN ('pending', 'done', 'failed')", name="state"),
    )
    run_id: str = _key("run.id")
    n: int = _number(key=True)
    """The lower, the older."""
    url: str = _text()
    site: str = _text()
    origin: int = Field(sa_type=BigInteger)
    """`n` of the start page from which it was found; a start page's own."""
    depth: int = _number()
    state: str = _text("pending")
    attempts: int = _number()
    avoid: str = _text("[]")
    """JSON list of proxies and sessions on which it failed."""
    error: str = _text("")
    ended_at: int | None = _instant(optional=True)
    spent_us: int = _number()
    bytes: int = _number()
    items: int = _number()


class RunItemRow(Table, table=True):
    """Something found on a page, as JSON; forgotten once its run is committed."""

    __tablename__: ClassVar[Any] = "run_item"
    run_id: str = _key("run.id")
    n: int = _number(key=True)
    page: int = Field(sa_type=BigInteger)
    body: str = _text()
