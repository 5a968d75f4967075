"""Keeps the noise of libraries away from our own progress, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers' logger, bars and warnings inside the block; errors still raise.

    Some of its bars cannot be turned off, so what is written to ``sys.stderr`` goes nowhere.
    """
    from transformers.utils import logging as noise  # noqa: PLC0415  (backend is imported without transformers)

    logger = logging.getLogger("transformers")
    level, bars = logger.level, noise.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    noise.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if bars:
            noise.enable_progress_bar()  # type: ignore[no-untyped-call]
