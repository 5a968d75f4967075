"""``python -m ecology``: the command line."""

from ecology.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
