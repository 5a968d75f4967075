"""Deterministic answer checks: the same reply is judged the same way on every machine, by no model."""
