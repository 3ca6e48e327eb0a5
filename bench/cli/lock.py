"""Checks the lock table and the package list.

python -m attnbench.bench.cli.lock            checks; exit 1 where a version is missing
python -m attnbench.bench.cli.lock --update   takes in new files and new versions
python -m attnbench.bench.cli.lock --same     takes in changes that move no number (a rename, a faster equal form)
"""

import sys
from collections.abc import Sequence

from ..lock import current, faults, locked, take_in, unpacked


def main(arguments: Sequence[str]) -> int:
    """Check or take in; return the exit code."""
    now = current()
    wrong = faults(now, locked())
    if "--update" in arguments or "--same" in arguments:
        silent = [line for line in wrong if ": changed at version" in line]
        if silent and "--same" not in arguments:
            print("\n".join(silent), file=sys.stderr)
            return 1
        take_in(now)
        wrong = []
    wrong += unpacked()
    good = f"lock table: {len(now)} entries, all as taken in; package list complete"
    print("\n".join(wrong) or good, file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
