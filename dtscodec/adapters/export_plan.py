"""Which changes of a pack an adapter carries, where, and which it cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.model_layers import ModelLayers
from dtscodec.adapters.tensor_changes import TensorChange
from dtscodec.checkpoints.name_matching import best_rule
from dtscodec.errors import EncodeError, ModelMismatchError, Remedy
from dtscodec.format.blocks import Tie
from dtscodec.format.index import TensorEntry
from dtscodec.format.tensor_names import base_name

ROUGH = 0.01
"""Relative error from which a dtype does not hold a pair."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tensor that changed, and that an adapter does not carry.

    Parameters
    ----------
    name : str
    why : str
    share : float or None
        Of the delta's squared norm; None where there is no telling, or the tensor is new.
    """

    name: str
    why: str
    share: float | None


@dataclass(slots=True)
class ExportPlan:
    """What becomes of each change.

    Parameters
    ----------
    layers : ModelLayers
        Of the model that is to use the adapter.
    homes : mapping
        The pack's name of each tensor of the model.
    square : float
        Squared norm of the delta, as far as it is known.
    carried : dict
        Changes that become pairs, by module.
    dropped : dict
        The others, by their names in the model: the pack's name, why, and the squared norm if it is known.
    saved : list of str
        Modules that are replaced whole.
    """

    layers: ModelLayers
    homes: Mapping[str, str]
    square: float
    carried: dict[str, TensorChange] = field(default_factory=dict)
    dropped: dict[str, tuple[str, str, float | None]] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, entries: Sequence[TensorEntry], changes: Sequence[TensorChange], layers: ModelLayers) -> "ExportPlan":
        """Find where each change belongs.

        Raises
        ------
        ModelMismatchError
            The model has none of the pack's tensors.
        """
        rule = best_rule({entry.name: entry.spec for entry in entries}, layers.specs)
        homes = {base_name(entry.name, rule): entry.name for entry in entries}
        if not homes.keys() & layers.specs.keys():
            detail = f"expected the pack's tensors, such as {entries[0].name!r}, got none of these names"
            raise ModelMismatchError(f"{layers.model}: {detail}", Remedy("name the fine-tune's model ({model})"))
        plan = cls(layers, homes, sum(change.square or 0.0 for change in changes))
        ties = {base_name(entry.name, rule): tie.to for entry in entries if isinstance(tie := entry.blocks[0], Tie)}
        for change in changes:
            home = base_name(change.entry.name, rule)
            tied = [name for name, to in ties.items() if to == change.entry.name]
            plan._place(home, tied, change)
        return plan

    def _place(self, home: str, tied: Sequence[str], change: TensorChange) -> None:
        """Let a change be carried by its layer and those that share its weight, or by none."""
        layers = self.layers
        shared = layers.sharing.get(home, ())
        for name in tied:
            if name not in shared:
                self.dropped[name] = self.homes[name], f"tied to {change.entry.name}, not so in {layers.model}", None
        names = [name for name in shared if name in (home, *tied) or name not in self.homes]
        modules = [name.removesuffix(".weight") for name in names]
        if home not in layers.specs or layers.specs[home].shape != change.entry.spec.shape:
            why = f"no such tensor in {layers.model}, the model that uses the adapter"
        elif change.delta is None:
            why = change.how
        elif not home.endswith(".weight") or not all(module in layers.kinds for module in modules):
            why = "no layer that a LoRA changes"
        else:
            self.carried.update(dict.fromkeys(modules, change))
            return
        self.dropped[home] = change.entry.name, why, change.square

    def save_modules(self) -> None:
        """Replace the modules of dropped changes whole, where that does not touch anything else."""
        for home in list(self.dropped):
            module = home.rpartition(".")[0]
            own = self.layers.leaves.get(module, ())
            is_alone = all(name in self.homes and len(self.layers.sharing[name]) == 1 for name in own)
            if own and is_alone and module not in self.carried and home in own:
                del self.dropped[home]
                self.saved = sorted({*self.saved, module})

    @property
    def whole(self) -> dict[str, str]:
        """Tensors of the modules that are replaced whole, by their names in the model: the pack's names."""
        return {name: self.homes[name] for module in self.saved for name in self.layers.leaves[module]}

    @property
    def largest_rank(self) -> int:
        """Components of the change that has most."""
        return max(_rank(change) for change in self.carried.values())

    def left_out(self) -> list[LeftOut]:
        """What is dropped, the largest shares first."""
        found = [
            LeftOut(name, why, None if square is None else square / (self.square or 1.0))
            for name, why, square in self.dropped.values()
        ]
        return sorted(found, key=lambda left: (-(left.share or 0.0), left.name))

    def check(self, strict: bool) -> None:
        """Raise EncodeError if nothing is carried, or, if `strict`, not everything."""
        left = self.left_out()
        names = ", ".join(item.name for item in left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        if not self.carried:
            raise EncodeError(f"expected a delta of low rank of some layer, got none ({names or 'nothing changed'})")
        if strict and left:
            share = 100 * sum(item.share or 0.0 for item in left)
            detail = f"got {len(left)} tensors that it cannot carry, {share:.2g} % of the delta ({names})"
            remedy = Remedy("leave out {strict}, or replace whole modules with {modules_to_save}")
            raise EncodeError(f"expected a pack that an adapter carries whole, {detail}", remedy)

    def pairs(self, rank: int, dtype: torch.dtype) -> tuple[dict[str, LoraPair], float]:
        """The pairs by module, and the squared norm that is lost to the rank.

        Raises
        ------
        EncodeError
            A dtype that does not hold them.
        """
        pairs, lost = {}, {}
        for module, change in sorted(self.carried.items()):
            assert change.delta is not None
            kind = self.layers.kinds[module]
            pair = LoraPair.from_delta(change.delta, kind, change.entry.spec.shape, rank)
            _check_dtype(module, pair, dtype)
            pairs[module] = pair
            if rank < _rank(change):
                kept = pair.to_delta(1.0, kind == "transposed").square()
                lost[change.entry.name] = max(0.0, change.delta.square() - kept)
        return pairs, sum(lost.values())


def _rank(change: TensorChange) -> int:
    return change.delta.left.shape[1] if change.delta is not None else 0


def _check_dtype(module: str, pair: LoraPair, dtype: torch.dtype) -> None:
    """Raise EncodeError if a dtype is too narrow for a pair."""
    exact = pair.to_delta(1.0, False)
    try:
        lost = (
            LoraPair(pair.a.to(dtype), pair.b.to(dtype), pair.is_embedding).to_delta(1.0, False).minus(exact).square()
        )
    except ValueError:
        lost = float("inf")
    if lost > ROUGH**2 * exact.square():
        raise EncodeError(f"{module}: expected factors that {dtype} holds, got others", Remedy("use float32 ({dtype})"))
