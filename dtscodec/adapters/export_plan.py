"""Plan of an export: the changes of a pack that an adapter carries, by module, and those that it leaves out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.model_layers import ModelLayers
from dtscodec.adapters.tensor_changes import TensorChange
from dtscodec.checkpoints.name_matching import best_rule
from dtscodec.errors import EncodeError, ModelMismatchError, Remedy
from dtscodec.format.index import TensorEntry
from dtscodec.format.naming import base_name
from dtscodec.messages import listed

MAX_CONVERSION_ERROR = 0.01
"""Relative error above which a dtype is too narrow for a pair."""
NAME_FINE_TUNE = Remedy("name the fine-tune's model ({model})")
"""For every error about a model that is not the fine-tune's."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A changed tensor that an adapter does not carry.

    Parameters
    ----------
    name : str
        Name of the tensor in the pack.
    why : str
        The reason, as a phrase.
    share : float or None
        Share of the tensor's delta in the squared norm of all deltas. None if it is unknown or the tensor is new.
    remedy : Remedy, optional
        What to do so that an adapter carries it.
    """

    name: str
    why: str
    share: float | None
    remedy: Remedy | None = None


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """The module that carries each change of a pack, and the changes that no module carries.

    Parameters
    ----------
    layers : ModelLayers
        Layers of the model that uses the adapter.
    pack_names : mapping of str to str
        Names in the pack by names in the model.
    square : float
        Squared Frobenius norm of all deltas that are known.
    carried : mapping of str to TensorChange
        Low-rank changes that become pairs, by module.
    saved : tuple of str
        Modules that are stored as a whole (PEFT's `modules_to_save`), ascending.
    left_out : tuple of LeftOut
        All other changes, the largest shares first.
    """

    layers: ModelLayers
    pack_names: Mapping[str, str]
    square: float
    carried: Mapping[str, TensorChange]
    saved: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def saved_tensors(self) -> dict[str, str]:
        """Tensors of the modules that are stored as a whole: names in the model -> names in the pack."""
        return {name: self.pack_names[name] for module in self.saved for name in self.layers.leaves[module]}

    @property
    def largest_rank(self) -> int:
        """Largest rank of the changes that are carried."""
        return max(_rank(change) for change in self.carried.values())

    def check(self, strict: bool) -> None:
        """Raise EncodeError if no change is carried.

        Parameters
        ----------
        strict : bool
            Raise it also if any change is left out.
        """
        left = self.left_out
        names = listed([item.name for item in left], 3)
        if not self.carried:
            raise EncodeError(f"expected a low-rank delta of some layer, got none ({names or 'no tensor is changed'})")
        if strict and left:
            share = 100 * sum(item.share or 0.0 for item in left)
            detail = f"got {len(left)} tensors that it cannot carry, {share:.2g} % of the delta ({names})"
            remedy = Remedy("leave out {strict}, or store whole modules with {save_modules}", {"save_modules": "True"})
            raise EncodeError(f"expected a pack that an adapter carries completely, {detail}", remedy)

    def pairs(self, rank: int, dtype: torch.dtype) -> tuple[dict[str, LoraPair], float]:
        """Factor the deltas into pairs of one rank.

        Parameters
        ----------
        rank : int
            Rank of all pairs.
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
            if rank < _rank(change):  # By tensor: the loss of a change that tied modules share counts once.
                retained = pair.to_delta(1.0, kind == "transposed").square()
                lost[change.entry.name] = max(0.0, change.delta.square() - retained)
        return pairs, sum(lost.values())


@dataclass(frozen=True, slots=True)
class _Dropped:
    """A change that is not carried as a pair: the reason, and its squared norm if it is known."""

    why: str
    square: float | None
    remedy: Remedy | None = None

    def share_of(self, total: float) -> float | None:
        return None if self.square is None else self.square / (total or 1.0)


def plan_export(
    entries: Sequence[TensorEntry], changes: Sequence[TensorChange], layers: ModelLayers, save_modules: bool = False
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

    Raises
    ------
    ModelMismatchError
        The model has none of the pack's tensors.
    """
    rule = best_rule({entry.name: entry.spec for entry in entries}, layers.specs)
    pack_names = {base_name(entry.name, rule): entry.name for entry in entries}
    if not pack_names.keys() & layers.specs.keys():
        problem = f"expected the pack's tensors, such as {entries[0].name!r}, got none of these names"
        raise ModelMismatchError(f"{layers.model}: {problem}", NAME_FINE_TUNE)
    # Tensors that the pack ties to a stored one, by their names in the model.
    ties = {base_name(entry.name, rule): entry.tied_to for entry in entries if entry.tied_to is not None}
    carried: dict[str, TensorChange] = {}
    dropped: dict[str, _Dropped] = {}
    for change in changes:
        name = base_name(change.entry.name, rule)
        shared = layers.sharing.get(name, ())
        # Tied in the pack, but not in the model: the model would not change both.
        tied = [tie for tie, to in ties.items() if to == change.entry.name]
        why = f"tied to {change.entry.name}, not so in {layers.model}"
        dropped |= {tie: _Dropped(why, None) for tie in tied if tie not in shared}
        # Every module that shares the weight carries the change, unless the pack has another tensor for it.
        modules = [
            other.removesuffix(".weight") for other in shared if other in (name, *tied) or other not in pack_names
        ]
        obstacle = _obstacle(name, change, modules, layers)
        if obstacle is None:
            carried |= dict.fromkeys(modules, change)
        else:
            dropped[name] = obstacle
    # Dropped tensors are stored with their whole module where that is asked for and possible; the others are left out.
    saved = _modules_to_save(dropped, carried, pack_names, layers) if save_modules else {}
    square = sum(change.square or 0.0 for change in changes)
    left_out = [
        LeftOut(pack_names[name], item.why, item.share_of(square), item.remedy)
        for name, item in dropped.items()
        if name not in saved
    ]
    left_out.sort(key=lambda left: (-(left.share or 0.0), left.name))
    return ExportPlan(layers, pack_names, square, carried, tuple(sorted(set(saved.values()))), tuple(left_out))


def _obstacle(name: str, change: TensorChange, modules: Sequence[str], layers: ModelLayers) -> _Dropped | None:
    """Return the reason why a LoRA of the given modules cannot carry a change, or None if it can."""
    if name not in layers.specs or layers.specs[name].shape != change.entry.spec.shape:
        why = f"no such tensor in {layers.model}, the model that uses the adapter"
        return _Dropped(why, change.square, NAME_FINE_TUNE)
    if change.delta is None:
        return _Dropped(change.how, change.square)
    if not name.endswith(".weight") or not all(module in layers.kinds for module in modules):
        return _Dropped("no layer that a LoRA changes", change.square)
    return None


def _modules_to_save(
    dropped: Mapping[str, _Dropped],
    carried: Mapping[str, TensorChange],
    pack_names: Mapping[str, str],
    layers: ModelLayers,
) -> dict[str, str]:
    """Return the modules of dropped tensors that can be stored as a whole, by the tensors' names in the model.

    A module can if all its tensors are in the pack and no other module uses them.
    """
    found = {}
    for name in dropped:
        module = name.rpartition(".")[0]
        own = layers.leaves.get(module, ())
        is_alone = all(tensor in pack_names and len(layers.sharing[tensor]) == 1 for tensor in own)
        if name in own and is_alone and module not in carried:
            found[name] = module
    return found


def _rank(change: TensorChange) -> int:
    return change.delta.left.shape[1] if change.delta is not None else 0


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
