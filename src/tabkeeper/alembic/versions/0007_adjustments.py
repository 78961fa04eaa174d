"""Find a period's adjustments without reading its whole journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index(
        "ix_entry_adjusted",
        "entry",
        ["effective_at"],
        sqlite_where=sa.text("kind = 'adjust'"),
        postgresql_where=sa.text("kind = 'adjust'"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_entry_adjusted", table_name="entry")
