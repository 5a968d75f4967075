"""The composition root and the run: the only room that knows everyone."""
