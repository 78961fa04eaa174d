"""A board that several processes share: its log, its snapshots, and who takes part."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "board_head",
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("shift", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("board", name=op.f("pk_board_head")),
    )
    op.create_table(
        "board_entry",
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("home", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("seen_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("seen_sum", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("board", "seq", name=op.f("pk_board_entry")),
        sa.UniqueConstraint("board", "nonce", name=op.f("uq_board_entry_board_nonce")),
    )
    op.create_table(
        "board_snapshot",
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("planner", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("board", "seq", name=op.f("pk_board_snapshot")),
    )
    op.create_table(
        "board_member",
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("home", sa.BigInteger(), nullable=False),
        sa.Column("process_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("planner", sa.Text(), nullable=False),
        sa.Column("beats", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("joined_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("board", "home", name=op.f("pk_board_member")),
    )


def downgrade() -> None:
    """Take back."""
    for table in ("board_member", "board_snapshot", "board_entry", "board_head"):
        op.drop_table(table)
