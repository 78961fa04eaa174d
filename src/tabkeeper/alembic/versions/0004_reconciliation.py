"""Room for reconciliation: looks at providers' figures, how far each session is compared, and drift."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "recon_run",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)
            for name in ("sessions", "waiting", "ours_n", "theirs_n", "adjusted", "past")
        ),
        sa.Column("error", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recon_run")),
    )
    op.create_index("ix_recon_run_at", "recon_run", ["at"], unique=False)
    op.create_table(
        "recon_item",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("checked_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("theirs_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("said", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'compared', 'silent')", name=op.f("ck_recon_item_state")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["session.id"], name=op.f("fk_recon_item_session_id_session")
        ),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_recon_item")),
    )
    op.create_index("ix_recon_item_state_next_at", "recon_item", ["state", "next_at"], unique=False)
    op.create_table(
        "drift",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("dedupe_key", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("provider_session_id", sa.Text(), nullable=True),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("times", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("detail", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift")),
        sa.UniqueConstraint("dedupe_key", name=op.f("uq_drift_dedupe_key")),
    )
    op.create_index("ix_drift_last_at", "drift", ["last_at"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_table("drift")
    op.drop_table("recon_item")
    op.drop_table("recon_run")
