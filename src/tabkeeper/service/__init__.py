"""The service: the pool over HTTP, for programs in any language, and for people who would rather look than read.

`create_app` puts it together; `tabkeeper serve` runs it. It decides nothing that the pool does not decide.
"""

from __future__ import annotations

from tabkeeper.service.app import create_app

__all__ = ["create_app"]
