"""Conformance cases for those who write operators, stores, engines and gates.

Each module has a ``CASES`` table of name -> function, to be handed to ``pytest.mark.parametrize``; a case raises
``NonconformingError`` with what was expected and what came. Our own rooms pass the same cases.
"""


class NonconformingError(AssertionError):
    """An implementation breaks what its port promises."""
