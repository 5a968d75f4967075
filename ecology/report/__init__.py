"""Facts become a report that a person reads, a program parses and anyone checks again offline.

``RunReport`` is the one source. ``story`` turns it into what is shown (no renderer computes anything), ``html``,
``markdown``, ``junit`` and ``texts`` write it down, ``json_report`` writes the facts themselves, ``bundle`` signs
and verifies all of it. Prompts and replies never appear: they go to ``restricted.jsonl``, which the report names by
digest.
"""
