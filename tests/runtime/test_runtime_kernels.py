from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecology.errors import BackendError, IntegrityError
from ecology.runtime import kernels
from ecology.runtime.kernels import Precision, forget_gradients, freeze_products, lay_out, raw


class Two(torch.nn.Module):
    """A layer of its own and one that shares its weight with an embedding."""

    def __init__(self, rows: int, columns: int, *, bias: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(columns, rows, bias=bias)
        self.embedding = torch.nn.Embedding(rows, columns)
        self.head = torch.nn.Linear(columns, rows, bias=False)
        self.head.weight = self.embedding.weight
        self.requires_grad_(False)


@given(rows=st.integers(1, 70), columns=st.integers(1, 70), bias=st.booleans(), batch=st.integers(1, 40))
def test_a_frozen_layer_computes_and_derives_as_a_plain_one(rows: int, columns: int, bias: bool, batch: int) -> None:
    torch.manual_seed(rows * 71 + columns)
    plain = Two(rows, columns, bias=bias)
    frozen = copy.deepcopy(plain)
    freeze_products(frozen, Precision())
    x, target = torch.randn(2, batch, columns), torch.randn(2, batch, rows)
    for name in ("layer", "head"):
        found = []
        for module in (plain, frozen):
            given = x.clone().requires_grad_()
            output = module.get_submodule(name)(given)
            (output * target).sum().backward()
            assert given.grad is not None
            found.append((output.detach(), given.grad))
        (wanted, slope), (output, gradient) = found
        assert torch.allclose(output, wanted, atol=1e-4)
        assert torch.allclose(gradient, slope, atol=1e-4)
        assert torch.allclose(frozen.get_submodule(name)(x), wanted, atol=1e-4)


def test_the_plain_weight_is_given_up_unless_it_is_shared_and_can_be_had_back() -> None:
    model = Two(40, 24, bias=True)
    before = {"layer": model.layer.weight.clone(), "head": model.head.weight.clone()}
    products = freeze_products(model, Precision())
    assert model.layer.weight.is_mkldnn
    assert model.head.weight is model.embedding.weight
    assert not model.head.weight.is_mkldnn
    for name, weight in before.items():
        assert torch.equal(products[name].plain, weight)
        assert raw(products[name].own[0]).size >= weight.nbytes
    assert raw(model.embedding.weight).tobytes() == before["head"].numpy().tobytes()


def test_what_gradients_need_is_dropped_after_training() -> None:
    model = Two(8, 8, bias=False)
    products = freeze_products(model, Precision())
    model.layer(torch.ones(1, 8, requires_grad=True)).sum().backward()
    assert products["layer"]._back is not None
    forget_gradients(model)
    assert products["layer"]._back is None


def test_no_gradient_goes_through_another_weight() -> None:
    model = Two(8, 8, bias=False)
    product = freeze_products(model, Precision())["layer"]
    product.use(lay_out(torch.zeros(8, 8)))
    with pytest.raises(BackendError, match="bare base"):
        model.layer(torch.ones(1, 8, requires_grad=True))
    assert torch.equal(model.layer(torch.ones(1, 8)), torch.zeros(1, 8))
    product.restore()
    assert product.is_own


def test_without_onednn_the_weight_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = Two(8, 8, bias=True)
    weight = model.layer.weight
    product = freeze_products(model, Precision())["layer"]
    assert product.plain is weight.data or product.plain is weight
    x = torch.randn(3, 8, requires_grad=True)
    model.layer(x).sum().backward()
    assert torch.allclose(model.layer(x.detach()), torch.nn.functional.linear(x.detach(), weight, model.layer.bias))


def test_a_layout_that_changes_a_weight_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = kernels.lay_out
    monkeypatch.setattr(kernels, "lay_out", lambda weight: real(weight + 1))
    with pytest.raises(IntegrityError, match=r"layer\.weight: the laid-out weight"):
        freeze_products(Two(8, 8, bias=False), Precision())
