"""An architecture of the table: a small model built from a configuration, inputs for it, and its library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from benchmarks.architectures.libraries import TRANSFORMERS, Library

VOCABULARY, WIDTH, INNER, HEADS, POSITIONS = 160, 64, 96, 2, 64
LAYERS = 2
Kind: TypeAlias = Literal[
    "dense decoder",
    "fused projections",
    "mixture of experts",
    "state space",
    "encoder-decoder",
    "encoder",
    "vision",
    "vision-language",
    "diffusion",
    "sentence embedding",
]
Inputs: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """A model to build, and inputs for it.

    Parameters
    ----------
    name : str
        As the table names it.
    kind : Kind
        Its class: the tests check one architecture of each.
    build : callable
        Build the model with random weights.
    inputs : callable
        Make inputs of two rows.
    build_base : callable, optional
        Build the base, if it is of another class than the fine-tune.
    lora : mapping of str to object
        Options of `peft.LoraConfig`, such as `target_modules`.
    library : Library
        How models of this architecture are saved, loaded and run.
    """

    name: str
    kind: Kind
    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    build_base: Callable[[], nn.Module] | None = None
    lora: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    library: Library = TRANSFORMERS


# Inputs of two rows


def tokens() -> Inputs:
    """Return two rows of tokens."""
    return {"input_ids": torch.arange(3, 35).reshape(2, 16)}


def token_pairs() -> Inputs:
    """Return two rows of tokens for an encoder and for a decoder."""
    return {**tokens(), "decoder_input_ids": torch.arange(40, 56).reshape(2, 8)}


def noise(*shape: int) -> Tensor:
    """Return random numbers, the same in each call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))
