"""Create the ledger: tables, indexes, and the triggers that keep the journal append-only.

From here on a change of schema is a new revision; this one never changes again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JOURNAL = ("entry", "entry_line", "posting")
_TABLES = (
    "allowance",
    "budget",
    "lease",
    "ledger_meta",
    "process",
    "rate_card",
    "rollup_day",
    "rollup_day_line",
    "rollup_hour",
    "rollup_line",
    "session_event",
    "budget_window",
    "rate_component",
    "session",
    "alert_event",
    "entry",
    "hold",
    "release_outbox",
    "window_threshold",
    "entry_line",
    "posting",
)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "allowance",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("month_at", sa.BigInteger(), nullable=False),
        sa.Column("used_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("provider", "plan", "kind", "month_at", name=op.f("pk_allowance")),
    )
    op.create_table(
        "budget",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("scope_kind", sa.Text(), nullable=False),
        sa.Column("scope_value", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("limit_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("thresholds", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("on_exceed", sa.Text(), server_default=sa.text("'deny'"), nullable=False),
        sa.Column("effective_from", sa.BigInteger(), nullable=False),
        sa.Column("effective_to", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("mode IN ('hard', 'soft')", name=op.f("ck_budget_mode")),
        sa.CheckConstraint(
            "scope_kind IN ('pool', 'platform', 'provider', 'tenant')", name=op.f("ck_budget_scope")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_budget_name_version")),
    )
    op.create_index(
        "uq_budget_current",
        "budget",
        ["name"],
        unique=True,
        sqlite_where=sa.text("effective_to IS NULL"),
        postgresql_where=sa.text("effective_to IS NULL"),
    )

    op.create_table(
        "lease",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("use_number", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("granted_at", sa.BigInteger(), nullable=False),
        sa.Column("released_at", sa.BigInteger(), nullable=False),
        sa.Column("waited_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("start_age_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("end_age_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("is_new", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("tags", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("cost_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease")),
    )
    op.create_index("ix_lease_granted_at", "lease", ["granted_at"], unique=False)
    op.create_index("ix_lease_session_id", "lease", ["session_id"], unique=False)

    op.create_table(
        "ledger_meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_ledger_meta")),
    )
    op.create_table(
        "process",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pid_started_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("snapshot", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_process")),
    )
    op.create_table(
        "rate_card",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("effective_from", sa.BigInteger(), nullable=False),
        sa.Column("effective_to", sa.BigInteger(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("imported_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "effective_to IS NULL OR effective_to > effective_from", name=op.f("ck_rate_card_lasts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rate_card")),
    )
    op.create_index(
        "uq_rate_card_current",
        "rate_card",
        ["provider"],
        unique=True,
        sqlite_where=sa.text("effective_to IS NULL"),
        postgresql_where=sa.text("effective_to IS NULL"),
    )

    op.create_table(
        "rollup_hour",
        sa.Column("hour_at", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("cost_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("idle_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rounding_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sessions", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed_sessions", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("leases", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reused", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("session_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("leased_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("waited_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("hour_at", "provider", "platform", "tenant", name=op.f("pk_rollup_hour")),
    )
    op.create_table(
        "rollup_line",
        sa.Column("hour_at", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("raw_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("billed_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("included_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint(
            "hour_at", "provider", "platform", "tenant", "kind", name=op.f("pk_rollup_line")
        ),
    )
    op.create_table(
        "rollup_day",
        sa.Column("day_at", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("cost_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("idle_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rounding_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sessions", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed_sessions", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("leases", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reused", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("session_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("leased_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("waited_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("day_at", "provider", "platform", "tenant", name=op.f("pk_rollup_day")),
    )
    op.create_table(
        "rollup_day_line",
        sa.Column("day_at", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("raw_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("billed_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("included_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint(
            "day_at", "provider", "platform", "tenant", "kind", name=op.f("pk_rollup_day_line")
        ),
    )
    op.create_table(
        "session_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("old", sa.Text(), nullable=False),
        sa.Column("new", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session_event")),
        sa.UniqueConstraint(
            "session_id", "at", "old", "new", name=op.f("uq_session_event_session_id_at_old_new")
        ),
    )
    op.create_index("ix_session_event_session_id", "session_event", ["session_id"], unique=False)

    op.create_table(
        "budget_window",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("budget_id", sa.BigInteger(), nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("end_at", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("limit_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("held_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("spent_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("forced_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("denied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("end_at > start_at", name=op.f("ck_budget_window_lasts")),
        sa.CheckConstraint("held_n >= 0", name=op.f("ck_budget_window_held")),
        sa.ForeignKeyConstraint(["budget_id"], ["budget.id"], name=op.f("fk_budget_window_budget_id_budget")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_window")),
        sa.UniqueConstraint("budget_id", "start_at", name=op.f("uq_budget_window_budget_id_start_at")),
    )
    op.create_index("ix_budget_window_start_at", "budget_window", ["start_at"], unique=False)

    op.create_table(
        "rate_component",
        sa.Column("rate_card_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("unit_price", sa.Text(), nullable=False),
        sa.Column("per_qty", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("increment_qty", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("min_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("included_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cap_qty", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["rate_card_id"], ["rate_card.id"], name=op.f("fk_rate_component_rate_card_id_rate_card")
        ),
        sa.PrimaryKeyConstraint("rate_card_id", "kind", name=op.f("pk_rate_component")),
    )
    op.create_table(
        "session",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("process_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'creating'"), nullable=False),
        sa.Column("provider_session_id", sa.Text(), nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("pid_started_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("active_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("close_reason", sa.Text(), nullable=True),
        sa.Column("uses", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("idle_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rounding_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("seconds_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("quality", sa.Text(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rate_card_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["process_id"], ["process.id"], name=op.f("fk_session_process_id_process")),
        sa.ForeignKeyConstraint(
            ["rate_card_id"], ["rate_card.id"], name=op.f("fk_session_rate_card_id_rate_card")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
    )
    op.create_index("ix_session_created_at", "session", ["created_at"], unique=False)
    op.create_index(
        "ix_session_open",
        "session",
        ["process_id"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )

    op.create_table(
        "alert_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dedupe_key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=True),
        sa.Column("window_id", sa.BigInteger(), nullable=True),
        sa.Column("metric", sa.Text(), nullable=True),
        sa.Column("share_ppm", sa.BigInteger(), nullable=True),
        sa.Column("amount_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("limit_n", sa.BigInteger(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["window_id"], ["budget_window.id"], name=op.f("fk_alert_event_window_id_budget_window")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_event")),
        sa.UniqueConstraint("dedupe_key", name=op.f("uq_alert_event_dedupe_key")),
    )
    op.create_index("ix_alert_event_state", "alert_event", ["state"], unique=False)

    op.create_table(
        "entry",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=False),
        sa.Column("payload_hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("amount_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("effective_at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("quality", sa.Text(), server_default=sa.text("'measured'"), nullable=False),
        sa.Column("reason", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("corrects_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('hold', 'settle', 'void', 'limit', 'adjust')", name=op.f("ck_entry_kind")
        ),
        sa.ForeignKeyConstraint(["corrects_id"], ["entry.id"], name=op.f("fk_entry_corrects_id_entry")),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_entry_session_id_session")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entry")),
        sa.UniqueConstraint("idem_key", name=op.f("uq_entry_idem_key")),
    )
    op.create_index("ix_entry_effective_at", "entry", ["effective_at"], unique=False)
    op.create_index("ix_entry_session_id_kind", "entry", ["session_id", "kind"], unique=False)

    op.create_table(
        "hold",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("payload_hash", sa.Text(), nullable=False),
        sa.Column("rate_card_id", sa.BigInteger(), nullable=False),
        sa.Column("amount_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("held_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'settled', 'voided')", name=op.f("ck_hold_state")),
        sa.CheckConstraint("amount_n >= 0", name=op.f("ck_hold_amount")),
        sa.ForeignKeyConstraint(
            ["rate_card_id"], ["rate_card.id"], name=op.f("fk_hold_rate_card_id_rate_card")
        ),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_hold_session_id_session")),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_hold")),
    )
    op.create_index(
        "ix_hold_open",
        "hold",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )

    op.create_table(
        "release_outbox",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_session_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["session.id"], name=op.f("fk_release_outbox_session_id_session")
        ),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_release_outbox")),
    )
    op.create_table(
        "window_threshold",
        sa.Column("window_id", sa.BigInteger(), nullable=False),
        sa.Column("share_ppm", sa.BigInteger(), nullable=False),
        sa.Column("amount_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["window_id"], ["budget_window.id"], name=op.f("fk_window_threshold_window_id_budget_window")
        ),
        sa.PrimaryKeyConstraint("window_id", "share_ppm", name=op.f("pk_window_threshold")),
    )
    op.create_table(
        "entry_line",
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("raw_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("billed_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("included_qty", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("amount_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entry.id"], name=op.f("fk_entry_line_entry_id_entry")),
        sa.PrimaryKeyConstraint("entry_id", "kind", name=op.f("pk_entry_line")),
    )
    op.create_table(
        "posting",
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("window_id", sa.BigInteger(), nullable=False),
        sa.Column("d_held_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("d_spent_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("d_forced_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entry.id"], name=op.f("fk_posting_entry_id_entry")),
        sa.ForeignKeyConstraint(
            ["window_id"], ["budget_window.id"], name=op.f("fk_posting_window_id_budget_window")
        ),
        sa.PrimaryKeyConstraint("entry_id", "window_id", name=op.f("pk_posting")),
    )
    op.create_index("ix_posting_window_id", "posting", ["window_id"], unique=False)
    op.bulk_insert(
        sa.table("ledger_meta", sa.column("key", sa.Text), sa.column("value", sa.Text)),
        [
            {"key": "currency", "value": "USD"},
            {"key": "asset_scale", "value": "9"},
            {"key": "epoch", "value": "0"},
        ],
    )
    _forbid_changes()


def downgrade() -> None:
    """Drop everything."""
    for table in reversed(_TABLES):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION tabkeeper_append_only()")


def _forbid_changes() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION tabkeeper_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$"
        )
        for table in _JOURNAL:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION tabkeeper_append_only()"
            )
        return
    for table in _JOURNAL:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
            )
