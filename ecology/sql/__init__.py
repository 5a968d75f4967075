"""Connections to a SQL database: one way of opening, reading and writing, for whoever keeps tables."""
