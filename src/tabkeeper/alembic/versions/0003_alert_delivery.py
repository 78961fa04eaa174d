"""Deliver alerts on several channels: who was told is a row for each channel, not a state of the alert."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "alert_channel",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_alert_channel")),
    )
    op.create_table(
        "alert_delivery",
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["channel"], ["alert_channel.name"], name=op.f("fk_alert_delivery_channel_alert_channel")
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["alert_event.id"], name=op.f("fk_alert_delivery_event_id_alert_event")
        ),
        sa.PrimaryKeyConstraint("event_id", "channel", name=op.f("pk_alert_delivery")),
    )
    op.drop_index("ix_alert_event_state", table_name="alert_event")
    for column in ("state", "attempts", "next_at", "delivered_at"):
        op.drop_column("alert_event", column)
    op.create_index("ix_alert_event_at", "alert_event", ["at"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_alert_event_at", table_name="alert_event")
    op.add_column(
        "alert_event", sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False)
    )
    for column in ("attempts", "next_at"):
        op.add_column(
            "alert_event", sa.Column(column, sa.BigInteger(), server_default=sa.text("0"), nullable=False)
        )
    op.add_column("alert_event", sa.Column("delivered_at", sa.BigInteger(), nullable=True))
    op.create_index("ix_alert_event_state", "alert_event", ["state"], unique=False)
    op.drop_table("alert_delivery")
    op.drop_table("alert_channel")
