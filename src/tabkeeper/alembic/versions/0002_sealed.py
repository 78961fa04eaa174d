"""Room for secrets, always sealed: where a session is reached, and saved profiles with who may write them.

Nothing is taken away, so going back only drops what is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables."""
    op.add_column("session", sa.Column("connect_sealed", sa.Text(), nullable=True))
    op.add_column("session", sa.Column("identity", sa.Text(), nullable=True))
    op.create_table(
        "profile",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("proxy", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("saved_at", sa.BigInteger(), nullable=False),
        sa.Column("succeeded_at", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("uses", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.Column("retired_why", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profile")),
        sa.CheckConstraint("retired_at IS NULL OR sealed IS NULL", name=op.f("ck_profile_retired")),
    )
    op.create_index(
        "uq_profile_live",
        "profile",
        ["tenant", "site", "proxy"],
        unique=True,
        sqlite_where=sa.text("retired_at IS NULL"),
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_table(
        "profile_writer",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("proxy", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "site", "proxy", name=op.f("pk_profile_writer")),
    )


def downgrade() -> None:
    """Drop what `upgrade` added."""
    op.drop_table("profile_writer")
    op.drop_table("profile")
    op.drop_column("session", "identity")
    op.drop_column("session", "connect_sealed")
