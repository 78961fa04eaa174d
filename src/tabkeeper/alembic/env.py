"""Alembic's entry: runs migrations on the connection (and in the transaction) that `ledger.schema` opened.

There is no ini file and no offline mode; ``tabkeeper db upgrade`` is the only way in.
"""

from __future__ import annotations

from alembic import context

from tabkeeper.ledger.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
