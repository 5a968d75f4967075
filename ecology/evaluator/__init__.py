"""Suites become evidence: items expanded, asked through the cache, scored by verifiers."""
