"""The real clock; everything else takes a ``ports.Clock``."""

from __future__ import annotations

import datetime
import time


class SystemClock:
    """``ports.Clock`` of this machine."""

    def now(self) -> str:
        """RFC 3339 instant in UTC, whole seconds, ending in ``Z``."""
        return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def monotonic(self) -> float:
        """Seconds since some fixed point, at the best resolution there is."""
        return time.perf_counter()
