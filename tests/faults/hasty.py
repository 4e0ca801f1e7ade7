"""``python -m tests.faults.hasty VERB``: receiver, with seconds where its reconciler really has up to a minute."""

from __future__ import annotations

import sys

from receiver import fetch

SECONDS = 4
"""For a GET, and for an answer of the database."""


def main() -> int:
    """Run a command; gives the exit status."""
    fetch.TOTAL_SECONDS = SECONDS
    from receiver import cli, reconciler  # noqa: PLC0415 - a lease is as long as this says

    reconciler._PATIENCE = SECONDS
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
