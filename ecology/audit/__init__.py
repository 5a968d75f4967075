"""What happened, in an order that nobody can change unseen.

``notes`` is the signed checkpoint, ``proofs`` what a reader can check without the log, ``database`` the tables,
``leaves`` how they are read, ``log`` the log itself.
"""
