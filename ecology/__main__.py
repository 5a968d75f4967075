"""``python -m ecology``: the command line.

An older Python cannot even import it, so the version is looked at first, in words that any Python 3 understands.

``python -m`` looks for modules where one stands before it looks into the installation. Where that is somebody else's
folder, its ``cryptography.py`` would be imported in place of the library, so the folder is taken off the path before
anything is imported. A whole ``ecology`` in it would run instead of this file: only ``python -P -m ecology``, or the
command ``ecology``, keeps that out.
"""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  (a checkout can be run by whatever Python is at hand)
    sys.stderr.write(
        "ecology: Python 3.11 or newer is needed, this is {}.{}; make a new environment with one\n".format(
            *sys.version_info[:2]
        )
    )
    raise SystemExit(2)

if (
    not sys.flags.safe_path  # with it, the first entry is not where one stands
    and os.path.isdir(sys.path[0])
    and os.path.samefile(sys.path[0], os.curdir)
    and not os.path.samefile(sys.path[0], os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
):
    del sys.path[0]

from ecology.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
