"""The laws: pure decisions. No input or output, no clock, no randomness of its own."""
