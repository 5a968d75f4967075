"""YAML and JSON lines that people write: one reading each, bounded, and the place of every mistake."""
