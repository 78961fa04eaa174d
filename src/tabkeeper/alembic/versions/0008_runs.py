"""Keep runs over sites: their pages, how each stands, and what was found and is not handed over yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)


def _empty(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=sa.text("''"), nullable=False)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("sites", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("max_cost_n", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        _count("items"),
        _empty("outlet"),
        _count("outlet_items"),
        _count("outlet_bytes"),
        sa.CheckConstraint("state IN ('open', 'committed')", name=op.f("ck_run_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_index("ix_run_name_started_at", "run", ["name", "started_at"], unique=False)
    op.create_table(
        "run_page",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("origin", sa.BigInteger(), nullable=False),
        _count("depth"),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        _count("attempts"),
        sa.Column("avoid", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        _empty("error"),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        _count("spent_us"),
        _count("bytes"),
        _count("items"),
        sa.CheckConstraint("state IN ('pending', 'done', 'failed')", name=op.f("ck_run_page_state")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_page_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", "n", name=op.f("pk_run_page")),
        sa.UniqueConstraint("run_id", "url", name=op.f("uq_run_page_run_id_url")),
    )
    op.create_table(
        "run_item",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("page", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_item_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", "n", name=op.f("pk_run_item")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("run_item")
    op.drop_table("run_page")
    op.drop_index("ix_run_name_started_at", table_name="run")
    op.drop_table("run")
