"""What is trained and what Adam remembers of it, as bytes and back: the state of every checkpoint."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load, save

from ecology.breeder.adapted import Adapted


def state_of(adapted: Adapted, optimiser: Any) -> bytes:
    """Numbers, both moments and the count of steps, as safetensors.

    Args:
        adapted: What is trained.
        optimiser: An ``Adam`` or ``AdamW`` over it; numbers without a step yet have no moments.
    """
    tensors = {}
    for name, parameter in adapted.trained.items():
        tensors[f"{name}.value"] = parameter.detach()
        if moments := optimiser.state.get(parameter):
            tensors[f"{name}.first"], tensors[f"{name}.second"] = moments["exp_avg"], moments["exp_avg_sq"]
            tensors[f"{name}.steps"] = moments["step"].reshape(1)
    return bytes(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))


def restore(adapted: Adapted, optimiser: Any, state: bytes) -> None:
    """Goes on from ``state_of``.

    Args:
        adapted: What is trained.
        optimiser: As there; None sets the numbers alone.
        state: What was kept.

    Raises:
        ConfigError: The state is of another adapter.
    """
    tensors = load(state)
    adapted.load({name: tensors[f"{name}.value"] for name in adapted.trained if f"{name}.value" in tensors})
    for name, parameter in adapted.trained.items():
        if optimiser is not None and f"{name}.first" in tensors:
            optimiser.state[parameter] = {
                "step": tensors[f"{name}.steps"].reshape(()),
                "exp_avg": tensors[f"{name}.first"].to(parameter.device),
                "exp_avg_sq": tensors[f"{name}.second"].to(parameter.device),
            }


def inner(optimiser: Any) -> Any:
    """The optimiser inside what Accelerate wraps around it."""
    return getattr(optimiser, "optimizer", optimiser)
