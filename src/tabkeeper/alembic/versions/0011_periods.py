"""What providers billed for whole periods, beside what was booked for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "recon_period",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("end_at", sa.BigInteger(), nullable=False),
        sa.Column("checked_at", sa.BigInteger(), nullable=False),
        sa.Column("ours_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("theirs_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("booked_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("said", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["session.id"], name=op.f("fk_recon_period_session_id_session")
        ),
        sa.PrimaryKeyConstraint("provider", "start_at", name=op.f("pk_recon_period")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("recon_period")
