"""``python -m ecology``: the command line.

An older Python cannot even import it, so the version is looked at first, in words that any Python 3 understands.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (a checkout can be run by whatever Python is at hand)
    sys.stderr.write(
        "ecology: Python 3.11 or newer is needed, this is {}.{}; make a new environment with one\n".format(
            *sys.version_info[:2]
        )
    )
    raise SystemExit(2)

from ecology.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
