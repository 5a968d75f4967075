"""Conformance cases for those who write operators, stores, engines and gates.

Each module has a ``CASES`` table of name -> function, to be handed to ``pytest.mark.parametrize``; a case raises
``NonconformingError`` with what was expected and what came. Our own rooms pass the same cases.
"""


class NonconformingError(AssertionError):
    """An implementation breaks what its port promises.

    Args:
        what: What was expected and what came.
        error: How far off it was, relative, where that is a number.
    """

    def __init__(self, what: str, error: float | None = None) -> None:
        """Keeps the number, so that a table can show it."""
        self.error = error
        super().__init__(what)
