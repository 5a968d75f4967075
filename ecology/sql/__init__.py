"""Connections to a SQL database: one way of opening, reading and writing, for whoever keeps tables."""

RESTORE = "restore the file from a backup: the log lies in it too, and nothing but the log can rebuild a registry"
"""What to do about a database that is none any more."""
