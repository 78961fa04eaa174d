"""The board that many processes share: one log in PostgreSQL, and in each process a copy that follows it.

`board` is its face, `loop` what runs behind it; `entries` are the words of the log, `replica` what they do to a copy.
"""
