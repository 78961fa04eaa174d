"""`python -m tabkeeper` is the same as the command `tabkeeper`."""

from tabkeeper.cli import main

if __name__ == "__main__":
    main()
