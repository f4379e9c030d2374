"""Plan of an export: the changes of a pack that an adapter carries, by module, and the changes that it leaves out."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import torch

from dtscodec.adapters.exporting.export_obstacles import NAME_FINE_TUNE, AdapterTarget, find_obstacle, has_own_base
from dtscodec.adapters.exporting.left_out_changes import LeftOut, Obstacle
from dtscodec.adapters.exporting.tensor_changes import MOVED, TensorChange
from dtscodec.adapters.exporting.vllm_constraints import is_head_refused
from dtscodec.adapters.exporting.whole_modules import choose_whole, enclosing, head_modules, holders
from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.model_layers import ModelLayers
from dtscodec.checkpoints.base import Base
from dtscodec.errors import EncodeError, ModelMismatchError, Remedy
from dtscodec.format.index import TensorEntry
from dtscodec.messages import listed

MAX_CONVERSION_ERROR = 0.01
"""Relative error above which a dtype is too narrow for a pair."""


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """The module that carries each change of a pack, and the changes that no module carries.

    Parameters
    ----------
    layers : ModelLayers
        Layers of the model that uses the adapter.
    square : float
        Squared Frobenius norm of all deltas that are known.
    carried : mapping of str to TensorChange
        Low-rank changes that become pairs, by module.
    saved : tuple of str
        Modules that are stored as a whole (PEFT's `modules_to_save`), ascending.
    biases : tuple of str
        Biases, by their names in the model, of layers that have a pair.
    left_out : tuple of LeftOut
        All other changes, the largest shares first.
    counterparts : mapping of str to str
        The base tensor of each changed tensor of the pack.
    """

    layers: ModelLayers
    square: float
    carried: Mapping[str, TensorChange]
    saved: tuple[str, ...]
    biases: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    counterparts: Mapping[str, str]

    @property
    def saved_tensors(self) -> dict[str, str]:
        """Tensors of the modules that are stored as a whole: names in the model -> names in the pack."""
        ours = self.layers.names.in_checkpoint
        return {name: ours[name] for name in sorted(self.layers.specs) if enclosing(name, self.saved)}

    @property
    def has_heads(self) -> bool:
        """True if all heads of a classifier are among the modules that are stored as a whole."""
        heads = head_modules(self.layers)
        return bool(heads) and heads <= set(self.saved)

    @property
    def tied(self) -> tuple[str, ...]:
        """Modules that carry a change and share their weight, ascending."""
        counts = Counter(change.entry.name for change in self.carried.values())
        return tuple(sorted(module for module, change in self.carried.items() if counts[change.entry.name] > 1))

    def check(self, strict: bool, can_save_more: bool) -> None:
        """Raise EncodeError if no change is carried.

        Parameters
        ----------
        strict : bool
            Raise it also if any change is left out.
        can_save_more : bool
            Whether other modules could be stored as a whole, so that less is left out.
        """
        left = self.left_out
        names = listed([item.name for item in left], 3)
        if not self.carried:
            found = names or ", ".join(self.saved) or "no tensor is changed"
            raise EncodeError(f"expected a low-rank delta of some layer, got none ({found})")
        if strict and left:
            share = 100 * sum(item.share or 0.0 for item in left)
            detail = f"got {len(left)} tensors that it cannot carry, {share:.2g} % of the delta ({names})"
            other = (
                "store whole modules with {save_modules}" if can_save_more else "decode the pack and use the checkpoint"
            )
            remedy = Remedy(f"leave out {{strict}}, or {other}", {"save_modules": "True"} if can_save_more else {})
            raise EncodeError(f"expected a pack that an adapter carries completely, {detail}", remedy)

    def pairs(self, rank: int | None, dtype: torch.dtype) -> tuple[dict[str, LoraPair], float]:
        """Factor the deltas into pairs, each of its own rank.

        Parameters
        ----------
        rank : int or None
            Largest rank of a pair.
        dtype : torch.dtype
            Dtype that the pairs will be stored in.

        Returns
        -------
        pairs : dict of str to LoraPair
            By module, in float64.
        lost : float
            Squared norm that truncation to the rank removes.

        Raises
        ------
        EncodeError
            The dtype is too narrow for a pair.
        """
        pairs, lost = {}, {}
        for module, change in sorted(self.carried.items()):
            assert change.delta is not None
            kind = self.layers.kinds[module]
            pair = LoraPair.from_delta(change.delta, kind, change.entry.spec.shape, rank)
            _check_dtype(module, pair, dtype)
            pairs[module] = pair
            # By tensor: the loss of a change that tied modules share counts once.
            if rank is not None and rank < change.delta.left.shape[1]:
                retained = pair.to_delta(1.0, kind == "transposed").square()
                lost[change.entry.name] = max(0.0, change.delta.square() - retained)
        return pairs, sum(lost.values())


def plan_export(
    entries: Sequence[TensorEntry],
    changes: Sequence[TensorChange],
    layers: ModelLayers,
    *,
    save_modules: bool = False,
    to: AdapterTarget = "peft",
    base: Base | None = None,
) -> ExportPlan:
    """Find the module that carries each change of a pack.

    Parameters
    ----------
    entries : sequence of TensorEntry
        All tensors of the pack.
    changes : sequence of TensorChange
        The tensors that differ from the base.
    layers : ModelLayers
        Layers of the model that uses the adapter.
    save_modules : bool
        Store modules as a whole where a LoRA cannot change them, if no other module shares their tensors.
    to : {"peft", "vllm"}
        The program that the adapter is for. Changes that it refuses are left out.
    base : Base, optional
        The base, for the relative changes of tensors that are left out.

    Raises
    ------
    ModelMismatchError
        The model has none of the pack's tensors.
    """
    ours = layers.names.in_checkpoint
    if not (ours.keys() & layers.specs.keys() or layers.names.converted):
        problem = f"expected the pack's tensors, such as {entries[0].name!r}, got none of these names"
        raise ModelMismatchError(f"{layers.model}: {problem}", NAME_FINE_TUNE)
    whole = _choose_heads(changes, layers, to)
    carried, dropped = _assign_pairs(entries, changes, layers, to, whole)
    biases: list[str] = []
    if save_modules:
        # Dropped tensors are stored with their whole module, biases with the pair of their layer.
        whole |= choose_whole(dropped, holders(dropped, carried, layers), ours, layers)
        biases = [name for name in dropped if name.endswith(".bias") and name.removesuffix(".bias") in carried]
    square = sum(change.square or 0.0 for change in changes)
    left_out = [
        obstacle.left_out(ours.get(name, name), square, base)
        for name, obstacle in dropped.items()
        if name not in whole and name not in biases
    ]
    left_out.sort(key=lambda left: (-(left.share or 0.0), left.name))
    saved = tuple(sorted(set(whole.values())))
    counterparts = {change.entry.name: change.counterpart for change in changes}
    return ExportPlan(layers, square, carried, saved, tuple(sorted(biases)), tuple(left_out), counterparts)


def _choose_heads(changes: Sequence[TensorChange], layers: ModelLayers, to: AdapterTarget) -> dict[str, str]:
    """Choose the heads of a classifier to store as a whole, as PEFT does by default: module by tensor in the model."""
    ours, names = layers.names.in_checkpoint, layers.names.names
    changed = [names[change.entry.name] for change in changes if change.entry.name in names]
    heads = [head for head in head_modules(layers) if to == "peft" or not is_head_refused(layers.model, head)]
    whole = choose_whole(changed, heads, ours, layers)
    # All heads if any: PEFT expects them in the adapter.
    return whole | choose_whole(layers.specs, heads, ours, layers) if whole else whole


def _assign_pairs(
    entries: Sequence[TensorEntry],
    changes: Sequence[TensorChange],
    layers: ModelLayers,
    to: AdapterTarget,
    whole: Container[str],
) -> tuple[dict[str, TensorChange], dict[str, Obstacle]]:
    """Return the changes that pairs carry, by module, and the obstacles to others, by tensor in the model.

    Tensors in `whole` are stored with their module, and need no pair.
    """
    ours, names = layers.names.in_checkpoint, layers.names.names
    carried: dict[str, TensorChange] = {}
    dropped: dict[str, Obstacle] = {}
    # Tensors that the pack ties to a stored one, by their names in the model.
    ties = {names[entry.name]: entry.tied_to for entry in entries if entry.tied_to is not None and entry.name in names}
    for change in changes:
        name = names.get(change.entry.name, change.entry.name)
        shared = layers.sharing.get(name, ())
        # Tied in the pack, but not in the model: the model would not change both.
        tied = [tie for tie, to_name in ties.items() if to_name == change.entry.name]
        why = f"tied to {change.entry.name}, not so in {layers.model}"
        dropped |= {tie: Obstacle(why, None) for tie in tied if tie not in shared}
        # Every module that shares the weight carries the change, unless the pack has another tensor for it.
        modules = [other.removesuffix(".weight") for other in shared if other in (name, *tied) or other not in ours]
        is_converted = change.entry.name not in names
        is_same = change.how == MOVED and (is_converted or has_own_base(name, change, layers))
        if name in whole or is_same:
            continue
        obstacle = find_obstacle(name, change, modules, layers, to)
        if obstacle is None:
            carried |= dict.fromkeys(modules, change)
        else:
            dropped[name] = obstacle
    return carried, dropped


def _check_dtype(module: str, pair: LoraPair, dtype: torch.dtype) -> None:
    """Raise EncodeError if rounding a pair to a dtype changes its product by more than `MAX_CONVERSION_ERROR`."""
    exact = pair.to_delta(1.0, False)
    try:
        stored = LoraPair(pair.a.to(dtype), pair.b.to(dtype), pair.is_embedding)
        error = stored.to_delta(1.0, False).minus(exact).square()
    except ValueError:  # Infinite.
        error = float("inf")
    if error > MAX_CONVERSION_ERROR**2 * exact.square():
        raise EncodeError(f"{module}: expected factors that {dtype} holds, got others", Remedy("use float32 ({dtype})"))
