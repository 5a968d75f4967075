"""One resident base, many adapters: load, attach, ask, prove that the base is still the base."""
