"""Exact algebra on dW = B A, in NumPy and fp64, without ever forming dW.

``lowrank``: the type and its norms. ``core``: what a set of parents spans, so that a child costs O(rank^3).
``fingerprint``: whether two adapters are the same function.
"""
