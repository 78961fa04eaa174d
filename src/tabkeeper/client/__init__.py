"""The pool of another process: the same `get_session`, over HTTP, so that code moves there by one line.

    async with SessionPool.from_file("tabkeeper.toml") as pool:                    # here
    async with RemotePool("http://127.0.0.1:8020", token=token) as pool:           # elsewhere

Browsers are reached through the service's CDP gateway, or, with ``direct=True``, at their providers' own addresses.
"""

from tabkeeper.client.lease import RemoteLease
from tabkeeper.client.pool import RemotePool

__all__ = ["RemoteLease", "RemotePool"]
