"""Keep the report of each local day: one row, whichever process writes it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "report_run",
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("process_id", sa.Text(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("day", "timezone", name=op.f("pk_report_run")),
    )
    op.create_index("ix_report_run_timezone_ends_at", "report_run", ["timezone", "ends_at"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_table("report_run")
