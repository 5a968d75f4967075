"""What is demanded, written for people: ``policies/*.yaml`` to contract values, and nothing that a stranger brings.

``metrics`` knows what can be demanded of, ``reader`` makes a ``Policy`` of
a file or reports every mistake at once, ``layers`` lets a configuration tighten and never loosen, ``lint`` finds what
is well-formed and unwise, ``testing`` runs the cases that stand beside each policy.
"""
