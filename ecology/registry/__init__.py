"""What is known of the adapters: a SQL view of the facts in the audit log, which can be rebuilt from them at any time.

``events`` says which facts there are, ``database`` the tables, ``view`` how one fact changes them, ``lineage`` who
descends from whom, ``registry`` the whole.
"""
