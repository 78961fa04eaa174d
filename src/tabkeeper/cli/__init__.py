"""The command line: `tabkeeper` and its commands, one module per group.

It decides nothing that a user of the library could not decide as well.
"""

from tabkeeper.cli.app import main

__all__ = ["main"]
