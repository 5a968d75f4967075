"""The peer of ``breeding``: PEFT's own merges on models that cost it as little as can be."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from breeding_shapes import Shapes, seconds

from ecology.lowrank.lowrank import LowRank


def bare_model(shapes: Shapes, layers: Sequence[int]) -> Any:
    """Linear layers of the right shapes; their weights are never touched, so they cost no memory."""
    import torch

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, (m, n) in shapes.items():
                linear = torch.nn.Linear(1, 1, bias=False)
                linear.in_features, linear.out_features = n, m
                linear.weight = torch.nn.Parameter(torch.empty(m, n), requires_grad=False)
                setattr(self, name, linear)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = torch.nn.ModuleDict({str(i): Layer() for i in layers})

        def prepare_inputs_for_generation(self) -> None:
            """PEFT asks every causal language model for it."""

    return Model()


def peft_model(parents: Sequence[LowRank], shapes: Shapes, layers: Sequence[int], rank: int) -> Any:
    """A real PEFT model with the parents loaded."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = None
    for i, parent in enumerate(parents):
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(shapes), init_lora_weights=False)
        if model is None:
            model = get_peft_model(bare_model(shapes, layers), config, "p0")
        else:
            model.add_adapter(f"p{i}", config)
        for layer in layers:
            for name in shapes:
                module = getattr(model.base_model.model.l[str(layer)], name)
                factors = parent.modules[f"l.{layer}.{name}"]
                module.lora_B[f"p{i}"].weight.data = torch.tensor(factors.B, dtype=torch.float32)
                module.lora_A[f"p{i}"].weight.data = torch.tensor(factors.A, dtype=torch.float32)
    return model


def peft_layer(parents: Sequence[LowRank], shapes: Shapes, layer: int) -> float:
    """Seconds of PEFT's svd merge of one layer."""
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft_model(parents, shapes, [layer], 16)
        names = [f"p{i}" for i in range(len(parents))]
        return seconds(
            lambda: model.add_weighted_adapter(
                names, [0.4, 0.3, 0.2, 0.1], "child", combination_type="svd", svd_rank=16
            )
        )


PEER_START = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from peft import PeftModel
a, b, out = sys.argv[1:]

class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(576, 576, bias=False)
        self.v_proj = torch.nn.Linear(576, 192, bias=False)

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = Attention()

class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.layers = torch.nn.ModuleList([Layer() for _ in range(4)])
    def prepare_inputs_for_generation(self):
        pass

model = PeftModel.from_pretrained(Base(), a, adapter_name="a")
model.load_adapter(b, adapter_name="b")
model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "child", combination_type="cat")
model.save_pretrained(out, selected_adapters=["child"])
"""
"""The least that merges two adapters with PEFT: a bare model with the layers that they change, and no weights read."""
