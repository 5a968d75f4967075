"""Every key of PEFT's ``LoraConfig`` and ``TinyLoraConfig``: what it defaults to, what it does, what to do about it.

The one table of what PEFT's ``adapter_config.json`` can say. The reader for breeding (``adapters``) and the static
gate judge by it; they may differ in what they let pass, never in what a key means. A key has one of three roles:

``function``   decides dW; a reader must honour it
``note``       says nothing about the function of the saved adapter: bookkeeping, or of use to training alone
``beyond``     under any value but ``plain`` the adapter does something that dW = s B A does not hold

A missing key means its default, in every release: no release from 0.4.0 to 0.21.2 has changed the default of a key
(compared by the syntax trees of 18 wheels), and keys have only been added. ``since`` is the first of those releases
that has the key.

Source: peft 0.21.2, ``config.py``, ``tuners/lora/config.py``, ``tuners/tinylora/config.py``; a test compares every
field with the installed dataclasses.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Literal

from ecology.contracts.identity import Json

PEFT_VERSION = "0.21.2"
"""The release that this table was read from."""

Role = Literal["function", "note", "beyond"]


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of a configuration."""

    role: Role
    default: Json
    """PEFT's own, and what a missing key means."""
    since: str
    """First release that has it."""
    values: str
    """What it may be, in words."""
    meaning: str
    """What it says; for ``beyond``, what any value but ``plain`` does."""
    plain: tuple[Json, ...] = ()
    """For ``beyond``: the values that leave dW = s B A, the default first."""
    todo: str = ""
    """For ``beyond``: how to come by an adapter that can be bred."""

    def is_plain(self, value: Json) -> bool:
        """Whether ``value`` leaves the adapter what s B A says; always, for other roles than ``beyond``."""
        return self.role != "beyond" or any(same_json(value, one) for one in self.plain)


def same_json(left: Json, right: Json) -> bool:
    """Equality of JSON values: 0, 0.0 and false are three values, as they are to readers in other languages."""
    return type(left) is type(right) and bool(left == right)


def _function(default: Json, since: str, values: str, meaning: str) -> Key:
    return Key("function", default, since, values, meaning)


def _note(default: Json, since: str, values: str, meaning: str) -> Key:
    return Key("note", default, since, values, meaning)


def _beyond(plain: tuple[Json, ...], since: str, values: str, meaning: str, todo: str) -> Key:
    return Key("beyond", plain[0], since, values, meaning, plain, todo)


COMMON: Mapping[str, Key] = types.MappingProxyType(
    {
        "peft_type": _function(None, "0.4.0", "the name of a method", "the method that the folder is of"),
        "task_type": _note(None, "0.4.0", "a task or null", "the class that wraps the base"),
        "auto_mapping": _note(None, "0.4.0", "a mapping or null", "the base's Python class, which a loader imports"),
        "peft_version": _note(None, "0.18.0", "a version or null", "who wrote the file"),
        "base_model_name_or_path": _note(None, "0.4.0", "text or null", "what the trainer called the base"),
        "revision": _note(None, "0.4.0", "text or null", "which revision of the base"),
        "inference_mode": _note(False, "0.4.0", "true or false", "whether the factors are frozen after loading"),
        "runtime_config": _note(None, "0.12.0", "a mapping", "how to compute; left out of files, ignored in them"),
        "target_modules": _function(None, "0.4.0", "names or a pattern", "which modules change"),
        "layers_to_transform": _function(None, "0.4.0", "layer numbers or null", "in which layers they change"),
        "layers_pattern": _function(None, "0.4.0", "names or null", "what the list of layers is called"),
        "fan_in_fan_out": _note(
            False,
            "0.4.0",
            "true or false",
            "whether the base stores weights as (in, out), as Conv1D does; B and A are the same either way",
        ),
        "bias": _beyond(
            ("none",),
            "0.4.0",
            "none, all or lora_only",
            "replaces biases of the base, also while the adapter is disabled",
            'train with bias="none"; the trained biases are absolute, and b - b0 needs the base',
        ),
        "modules_to_save": _beyond(
            (None, []),
            "0.4.0",
            "names or null",
            "replaces whole modules of the base by absolute weights",
            "train without modules_to_save (a classification head counts): W - W0 needs the base",
        ),
    }
)
"""Keys that both methods share, with equal defaults."""

_FROM_DATA = "is of use to its init_lora_weights alone"

LORA: Mapping[str, Key] = types.MappingProxyType(
    {
        **COMMON,
        "r": _function(8, "0.4.0", "a whole number of at least 1", "columns of B, rows of A"),
        "lora_alpha": _function(8, "0.4.0", "a number", "s = lora_alpha / r, or / sqrt(r) with use_rslora"),
        "use_rslora": _function(False, "0.8.0", "true or false", "s = lora_alpha / sqrt(r)"),
        "rank_pattern": _function({}, "0.6.0", "patterns to ranks", "r of the modules that a pattern matches"),
        "alpha_pattern": _function({}, "0.6.0", "patterns to numbers", "lora_alpha of the modules matched"),
        "exclude_modules": _function(None, "0.14.0", "names, a pattern or null", "which targets do not change"),
        "use_bdlora": _function(None, "0.19.0", "a mapping or null", "stores the blocks of a block-diagonal B or A"),
        "init_lora_weights": _beyond(
            (True, False, None, "gaussian", "eva", "orthogonal", "mica"),
            "0.4.0",
            "true, false or a name",
            "has changed the base before training: the factors are relative to a base that nobody else has",
            "save it with path_initial_model_for_weight_conversion, which makes it relative to the base again",
        ),
        "lora_dropout": _note(0.0, "0.4.0", "0 to 1", "dropout in training"),
        "qalora_group_size": _note(16, "0.16.0", "a whole number", "is of use to use_qalora alone"),
        "megatron_core": _note("megatron.core", "0.7.0", "a module name", "is of use to megatron_config alone"),
        "loftq_config": _note({}, "0.7.0", "a mapping", _FROM_DATA),
        "eva_config": _note(None, "0.14.0", "a mapping or null", _FROM_DATA),
        "corda_config": _note(None, "0.15.0", "a mapping or null", _FROM_DATA),
        "lora_ga_config": _note(None, "0.19.0", "a mapping or null", _FROM_DATA),
        "velora_config": _note(None, "0.20.0", "a mapping or null", "compresses activations for the backward pass"),
        "monteclora_config": _note(None, "0.20.0", "a mapping or null", "perturbs A at random while training"),
        "use_dora": _beyond(
            (False,),
            "0.9.0",
            "true or false",
            "rescales every row of W0 + s B A: the change has full rank and depends on the base's weights",
            "train with use_dora=false; or merge it into the base and take the best low-rank approximation of the "
            "difference, which loses what its rank does not hold",
        ),
        "lora_bias": _beyond(
            (False,),
            "0.14.0",
            "true or false",
            "adds s b to the output, which no operator on dW carries",
            "train with lora_bias=false",
        ),
        "trainable_token_indices": _beyond(
            (None, []),
            "0.15.0",
            "rows, or a mapping to rows, or null",
            "replaces rows of the embedding by absolute ones",
            "train without trainable_token_indices: the rows' change needs the base",
        ),
        "target_parameters": _beyond(
            (None, []),
            "0.17.0",
            "names or null",
            "changes bare parameters, such as those of a mixture of experts, by stacked factors in a layout of its own",
            "target modules and not parameters, or merge it and extract a LoRA for each expert",
        ),
        "ensure_weight_tying": _beyond(
            (False,),
            "0.18.0",
            "true or false",
            "makes tied layers of the base share one adapter",
            "train with ensure_weight_tying=false, or without the embedding and the output layer",
        ),
        "layer_replication": _beyond(
            (None, []),
            "0.10.0",
            "ranges of layers or null",
            "stacks the base's layers anew, so that module names mean other layers",
            "train on the base as it is",
        ),
        "megatron_config": _beyond(
            (None,),
            "0.7.0",
            "a mapping or null",
            "shards the factors over the layers of another library",
            "gather the shards and save a plain LoRA",
        ),
        "alora_invocation_tokens": _beyond(
            (None, []),
            "0.18.0",
            "token ids or null",
            "switches the adapter on from a trigger in the prompt onwards: no dW says when",
            "train with alora_invocation_tokens=null",
        ),
        "use_qalora": _beyond(
            (False,),
            "0.16.0",
            "true or false",
            "averages groups of inputs before A, on a base that is quantised",
            "train with use_qalora=false",
        ),
        "arrow_config": _beyond(
            (None,),
            "0.18.0",
            "a mapping or null",
            "routes each token among other adapters",
            "breed the adapters that it routes to",
        ),
        "kasa_config": _beyond(
            (None,),
            "0.21.2",
            "a mapping or null",
            "truncates the weights of the base for good and puts a diagonal between B and A",
            "train a plain LoRA: the change holds on the truncated base alone",
        ),
    }
)
"""Every key of a LoRA."""

TINYLORA: Mapping[str, Key] = types.MappingProxyType(
    {
        **{name: dataclasses.replace(key, since="0.19.0") for name, key in COMMON.items()},
        "r": _function(2, "0.19.0", "a whole number of at least 1", "singular directions of the frozen basis"),
        "u": _function(64, "0.19.0", "a whole number of at least 1", "length of every trained vector"),
        "weight_tying": _function(0.0, "0.19.0", "0 to 1", "1 - groups / modules: modules of a group share a vector"),
        "projection_seed": _function(42, "0.19.0", "a whole number", "seed of module i's projection is this + i"),
        "save_projection": _function(True, "0.19.0", "true or false", "whether the projections are in the file"),
        "init_weights": _note(True, "0.19.0", "true, false or uniform", "the vectors' start"),
        "init_v_bound": _note(0.02, "0.19.0", "a number", "is of use to init_weights alone"),
        "tinylora_dropout": _note(0.0, "0.19.0", "0 to 1", "dropout in training"),
    }
)
"""Every key of a TinyLoRA."""

METHODS: Mapping[str, Mapping[str, Key]] = types.MappingProxyType({"LORA": LORA, "TINYLORA": TINYLORA})
"""``peft_type`` to its keys, for the methods whose change is a dW of low rank that can be read without the base."""

CONVERTIBLE = frozenset(
    {
        *("C3A", "DELORA", "FOURIERFT", "GRALORA", "LOHA", "LOKR", "MISS", "PSOFT", "RANDLORA", "UNILORA", "VBLORA"),
        *("VERA", "WAVEFT"),
    }
)
"""Other methods whose change is a dW that ``peft.convert_to_lora`` can approximate, given the base."""
