"""What a session's own proxy charges, and how much it may move through it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("hold", sa.Column("proxy_price", sa.Text(), nullable=True))
    op.add_column(
        "hold", sa.Column("proxy_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("hold") as table:
        table.drop_column("proxy_bytes")
        table.drop_column("proxy_price")
