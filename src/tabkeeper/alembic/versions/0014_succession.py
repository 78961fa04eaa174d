"""Who waits to take a shared board over, and what its last process left; by which versions this schema can be used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "board_successor",
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("process_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("planner", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("board", "process_id", name=op.f("pk_board_successor")),
    )
    op.create_table(
        "board_bequest",
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("board", "session_id", name=op.f("pk_board_bequest")),
    )
    # See `ledger.schema.good_from`.
    op.execute("INSERT INTO ledger_meta (key, value) VALUES ('good_from', '0014')")


def downgrade() -> None:
    """Take back."""
    op.execute("DELETE FROM ledger_meta WHERE key = 'good_from'")
    op.drop_table("board_bequest")
    op.drop_table("board_successor")
