"""Turns a folder or an engine's answers into measurements that the policy's rules judge.

``static`` looks at bytes and claims with no model (``configuration``, ``tensors`` and ``provenance`` are its checks),
``measured`` counts what the evaluator was answered, ``ladder`` climbs from the cheapest question to the dearest and
stops at the first refusal. The gate has no opinions: thresholds are in the policy, and the law is in
``kernel.verdicts``.
"""
