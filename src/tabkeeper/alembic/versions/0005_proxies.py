"""Keep proxies, how they did, which session key has which, and which site refuses which."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _count(name: str, default: int = 0) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text(str(default)), nullable=False)


def _empty(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=sa.text("''"), nullable=False)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "proxy",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        _empty("credentials_env"),
        sa.Column("credentials_sealed", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        _empty("geo"),
        _count("weight", 1),
        sa.Column("price_per_gb", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proxy")),
    )
    op.create_table(
        "proxy_state",
        sa.Column("proxy", sa.Text(), nullable=False),
        _count("succeeded"),
        _count("failed"),
        _count("in_row"),
        _empty("recent"),
        sa.Column("latency_us", sa.BigInteger(), nullable=True),
        _empty("last_error"),
        _count("resume_at"),
        sa.PrimaryKeyConstraint("proxy", name=op.f("pk_proxy_state")),
    )
    op.create_table(
        "proxy_binding",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("proxy", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        _count("uses"),
        _count("failovers"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_proxy_binding")),
    )
    op.create_index("ix_proxy_binding_expires_at", "proxy_binding", ["expires_at"], unique=False)
    op.create_table(
        "site_block",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("proxy", sa.Text(), nullable=False),
        sa.Column("blocked_at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        _empty("message"),
        sa.PrimaryKeyConstraint("site", "proxy", name=op.f("pk_site_block")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("site_block")
    op.drop_index("ix_proxy_binding_expires_at", table_name="proxy_binding")
    op.drop_table("proxy_binding")
    op.drop_table("proxy_state")
    op.drop_table("proxy")
