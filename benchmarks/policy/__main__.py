"""``python -m benchmarks.policy`` is ``python -m benchmarks policy``."""

import sys

from benchmarks.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["policy", *sys.argv[1:]]))
