"""Keeps bindings in a database without a pool: one thread that writes behind, so that no caller waits for it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tabkeeper.clock import SystemClock
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger import schema
from tabkeeper.ledger.engines import is_away, write_engine
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.proxies import rows
from tabkeeper.proxies.sticky import StickyProxies
from tabkeeper.proxies.store import ProxyStore
from tabkeeper.vault import Vault

log = logging.getLogger(__name__)
T = TypeVar("T")

_LINGER = 0.02
"""Seconds that changes may gather before they are written together."""
_CLEAN_EVERY = 30.0
"""Seconds between two looks for bindings whose time is up."""


class Keeper:
    """The database of one `StickyProxies`.

    Raises:
        LedgerUnavailableError, SchemaVersionError: it cannot be used.
    """

    def __init__(self, database: str, sticky: StickyProxies, keys: Sequence[str]) -> None:
        self._engine = write_engine(database)
        self._store = ProxyStore(
            sticky.pool,
            sticky,
            Vault(keys),
            SystemClock(),
            fixed=frozenset(proxy.id for proxy in sticky.pool.all()),
        )
        self._sticky = sticky
        self._wake = threading.Event()
        self._stopping = threading.Event()
        try:
            schema.ensure(self._engine, auto_upgrade=True)
            self._store.take(self._transact(self._store.read))
        except BaseException:
            self._engine.dispose()
            raise
        for proxy_id, why in self._store.unreadable.items():
            log.warning("proxy %r is not used: %s", proxy_id, why)
        self._thread = threading.Thread(target=self._work, name="tabkeeper-proxies", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Write soon."""
        self._wake.set()

    def stop(self) -> None:
        """Write what is left and end. Safe to repeat."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        self._engine.dispose()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(_CLEAN_EVERY)
            self._stopping.wait(_LINGER)
            self._wake.clear()
            self._sticky.clean()
            if not self._save():
                self._stopping.wait(1.0)
                self._wake.set()
        self._save()

    def _save(self) -> bool:
        changes = self._store.changes()

        def work(tx: Transaction) -> None:
            self._store.write(tx, changes)
            rows.drop_expired(tx, self._store.wall_now())

        try:
            self._transact(work)
        except Exception as error:
            self._store.put_back(changes)
            if not is_away(error) and not isinstance(error, LedgerUnavailableError):
                log.exception("bindings could not be saved yet")
            else:
                log.warning("bindings could not be saved yet: %s", schema.reason(error))
            return False
        return True

    def _transact(self, work: Callable[[Any], T]) -> T:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._engine.connect())
            stack.enter_context(connection.begin())
            tx = Transaction(connection)
            done = work(tx)
            tx.close()
            return done
