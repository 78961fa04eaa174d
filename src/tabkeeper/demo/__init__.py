"""The demo: a pool of real browsers, a day's traffic in a minute, a budget that runs out, and proof that all held.

It uses the public face of Tabkeeper as any program would; nothing else in the package imports it.
"""

FULL = 60
"""Tasks of the whole demo; fewer make it shorter, and prove less."""
