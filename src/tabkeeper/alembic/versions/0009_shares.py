"""Keep whom an adjustment moved money from and to, so that a report can be told as of any entry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. What was adjusted before is put down to the session itself; nobody kept whose leases it was."""
    op.create_table(
        "entry_share",
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.Text(), nullable=False),
        sa.Column("cost_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rounding_n", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("seconds_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entry.id"], name=op.f("fk_entry_share_entry_id_entry")),
        sa.PrimaryKeyConstraint("entry_id", "lease_id", name=op.f("pk_entry_share")),
    )
    op.execute(
        "INSERT INTO entry_share (entry_id, lease_id, cost_n) "
        "SELECT id, '', amount_n FROM entry WHERE kind = 'adjust' AND amount_n <> 0"
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("entry_share")
