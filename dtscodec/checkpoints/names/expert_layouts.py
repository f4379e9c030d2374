"""Experts of one layer as one tensor of all (fused), or as a tensor for each (split): counterparts of each other.

transformers 5 fuses experts in loading: ``experts.N.gate_proj.weight`` and ``experts.N.up_proj.weight`` [m, n] become
``experts.gate_up_proj`` [experts, 2 m, n], gate before up, and ``experts.N.down_proj.weight`` become
``experts.down_proj``. Mixtral calls the three w1, w3 and w2. Other architectures have transposed matrices under these
names (Llama 4, gpt-oss), which are no counterparts.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.format.dtypes import TensorSpec

_SPLIT = re.compile(r"(?P<layer>(?:.+\.)?experts)\.(?P<number>\d+)\.(?P<matrix>\w+)\.weight")
_FUSED = re.compile(r"(?P<layer>(?:.+\.)?experts)\.(?P<matrix>\w+?)(?:\.weight)?")
_MATRICES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
"""Mixtral's names of the matrices of an expert."""


@dataclass(frozen=True, slots=True)
class BasePart:
    """Consecutive rows of a base tensor, with as many columns as the tensor whose counterpart they are part of.

    Parameters
    ----------
    name : str
        Name of the base tensor.
    first : int
        The first row.
    height : int
        Number of rows.
    """

    name: str
    first: int
    height: int


Parts: TypeAlias = tuple[BasePart, ...]
"""Rows of base tensors that together are the counterpart of one tensor, in the order of its rows."""


@dataclass(frozen=True, slots=True)
class FusedView:
    """Split experts as the fused tensors that they would be.

    Parameters
    ----------
    specs : mapping of str to TensorSpec
        The fused tensors, by the names that they would have.
    members : mapping of str to Parts
        The split tensors that each consists of.
    """

    specs: Specs
    members: Mapping[str, Parts]

    def in_place_of_split(self, specs: Specs) -> dict[str, TensorSpec]:
        """Return specs of a checkpoint with the fused tensors in place of the split ones.

        Parameters
        ----------
        specs : mapping
            Specs by name.
        """
        split = {part.name for parts in self.members.values() for part in parts}
        return {name: spec for name, spec in specs.items() if name not in split} | dict(self.specs)


def fused_view(specs: Specs) -> FusedView:
    """Return the fused tensors that split experts would be. Layers that lack an expert or a matrix are left out.

    Parameters
    ----------
    specs : mapping
        Specs by name.

    Examples
    --------
    >>> specs = {f"experts.{i}.w{k}.weight": TensorSpec("BF16", (4, 4)) for i in range(2) for k in (1, 2, 3)}
    >>> {name: spec.shape for name, spec in fused_view(specs).specs.items()}
    {'experts.gate_up_proj': (2, 8, 4), 'experts.down_proj': (2, 4, 4)}
    """
    layers: defaultdict[str, defaultdict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for name, spec in specs.items():
        if (match := _SPLIT.fullmatch(name)) and len(spec.shape) == 2:
            matrix = _MATRICES.get(match["matrix"], match["matrix"])
            layers[match["layer"]][matrix][int(match["number"])] = name
    fused: dict[str, TensorSpec] = {}
    members: dict[str, Parts] = {}
    for layer, matrices in layers.items():
        # Gate and up are one tensor, each expert's gate before its up.
        together = [["gate_proj", "up_proj"]] if {"gate_proj", "up_proj"} <= set(matrices) else []
        alone = [[matrix] for matrix in matrices if not together or matrix not in together[0]]
        for group in together + alone:
            names = _stacked([matrices[matrix] for matrix in group])
            if names is None or len({specs[name] for name in names}) != 1:
                continue
            spec, experts = specs[names[0]], len(names) // len(group)
            height, columns = spec.shape
            label = f"{layer}.{'gate_up_proj' if group in together else group[0]}"
            fused[label] = TensorSpec(spec.dtype, (experts, len(group) * height, columns))
            members[label] = tuple(BasePart(name, 0, height) for name in names)
    return FusedView(fused, members)


def _stacked(matrices: Sequence[Mapping[int, str]]) -> list[str] | None:
    """Return names in the order of a fused tensor's rows; None unless each matrix has all experts from 0 on."""
    numbers = range(len(matrices[0]))
    if any(set(matrix) != set(numbers) for matrix in matrices):
        return None
    return [matrix[number] for number in numbers for matrix in matrices]


def fused_experts(specs: Specs) -> list[str]:
    """Return the names of fused experts.

    Parameters
    ----------
    specs : mapping
        Specs by name.
    """
    return [name for name, spec in specs.items() if len(spec.shape) == 3 and _FUSED.fullmatch(name)]


def agreeing_layers(pairs: Mapping[str, str], fine: Specs, base: Specs) -> tuple[dict[str, str], list[str]]:
    """Return the pairs of experts, fused or viewed so, whose layout is the same beyond doubt, and the names of others.

    All tensors of a layer must agree in shape, and one of them must have matrices that are not square: of square ones
    the transposed has the same shape.

    Parameters
    ----------
    pairs : mapping of str to str
        Name in the fine-tune -> name in the base.
    fine, base : mapping
        Specs by name.
    """
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for name in pairs:
        layers[_layer(name)].append(name)
    agreeing: dict[str, str] = {}
    for names in layers.values():
        same = all(fine[name].shape == base[pairs[name]].shape for name in names)
        if same and any(fine[name].shape[1] != fine[name].shape[2] for name in names):
            agreeing |= {name: pairs[name] for name in names}
    return agreeing, sorted(set(pairs) - set(agreeing))


def _layer(name: str) -> str:
    match = _FUSED.fullmatch(name)
    return match["layer"] if match else name


def transposed_experts(fine: Specs, base: Specs, counterpart: Mapping[str, str | None]) -> list[str]:
    """Return fused experts whose counterpart has transposed matrices, square ones of the same layer included.

    Parameters
    ----------
    fine, base : mapping
        Specs by name.
    counterpart : mapping
        Name in the fine-tune -> name in the base, or None.
    """
    pairs = {name: other for name in fused_experts(fine) if (other := counterpart.get(name)) is not None}
    layers = {
        _layer(name)
        for name, other in pairs.items()
        if fine[name].shape != base[other].shape and _swapped(fine[name].shape) == base[other].shape
    }
    return sorted(name for name in pairs if _layer(name) in layers)


def _swapped(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])
