"""The conformance suite of breeding operators, for ours, a plug-in's or another tool's.

An operator is a function of the parents' dW, so the cases change factors, ranks, targets and order without changing
dW, and ask for the same child. What only some operators promise (order does not matter, linear in the weights, equal
to a dense formula) is a claim of the ``Subject`` and is tested when it is made.

    @pytest.mark.parametrize("case", CASES)
    def test_mine(case):
        CASES[case](Subject(my_operator, MyOptions(), commutes=True))

A case returns its largest relative error, None where nothing is claimed, and raises ``NonconformingError`` otherwise.
``python -m ecology.testing.operators`` runs all operators that are installed, plug-ins included, and PEFT's
``add_weighted_adapter`` beside them (``peft_library``), on the cases and on folders with every flag that PEFT writes
(``flags``), and writes the table (``table``).
"""

from ecology.testing.operators.cases import (
    CASES,
    TOLERANCE,
    Dense,
    Subject,
    dense,
    population,
    regauged,
    written,
)

__all__ = ["CASES", "TOLERANCE", "Dense", "Subject", "dense", "population", "regauged", "written"]
