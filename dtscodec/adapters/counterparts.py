"""Modules of an adapter -> tensors of the fine-tune, and their counterparts in the base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtscodec.adapters.lora_file import LoraAdapter
from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.name_match import Rule
from dtscodec.checkpoints.name_matching import best_rule
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.naming import base_name, utf8


@dataclass(frozen=True, slots=True)
class Counterparts:
    """The tensors of the fine-tune that an adapter and its base amount to.

    Parameters
    ----------
    prefix : (str, str)
        Leading prefixes in which names of fine-tune and base differ, as in `dtscodec.format.index.Index`.
    bases : mapping of str to str or None
        The base tensor of each of the fine-tune's tensors, None for new ones. Names ascend by their UTF-8 bytes.
    transposed : bool
        Whether the model holds linear weights as [in, out]. It decides for square weights, whose shape does not.
    """

    prefix: tuple[str, str]
    bases: Mapping[str, str | None]
    transposed: bool


def find_counterparts(adapter: LoraAdapter, base: Specs, renames: Sequence[tuple[str, str]] = ()) -> Counterparts:
    """Match an adapter to a base by names, which are equal or differ by one leading prefix.

    Parameters
    ----------
    adapter : LoraAdapter
        The adapter.
    base : mapping of str to TensorSpec
        Dtypes and shapes of the base's tensors.
    renames : sequence of (str, str)
        Tensors whose names differ in another way, such as a tied head: name in the fine-tune, name in the base.

    Returns
    -------
    Counterparts
        All tensors of the fine-tune, each with its base tensor.

    Raises
    ------
    EncodeError
        A weight that the adapter changes is missing in the base, has another shape, or is not floating-point; or the
        adapter does not change a tensor of `renames`.
    """
    weights = {f"{module}.weight": pair for module, pair in adapter.pairs.items()}
    prefix, counterparts = _match(weights, adapter, base, renames)
    # The fine-tune has every tensor of the base, under its own prefix, and those that the adapter adds.
    fine_prefix, base_prefix = prefix
    bases: dict[str, str | None] = {
        fine_prefix + name.removeprefix(base_prefix) if name.startswith(base_prefix) else name: name for name in base
    }
    bases |= counterparts
    transposed = adapter.settings.fan_in_fan_out
    for name, pair in weights.items():
        spec = _checked(name, pair, counterparts[name], base)
        # A weight that fits as [in, out] only decides for the square ones.
        transposed |= spec.shape != pair.weight_shape(False)
    return Counterparts(prefix, dict(sorted(bases.items(), key=lambda item: utf8(item[0]))), transposed)


def _match(
    weights: Mapping[str, LoraPair], adapter: LoraAdapter, base: Specs, renames: Sequence[tuple[str, str]]
) -> tuple[Rule, dict[str, str | None]]:
    """Return the naming rule, and the counterpart of each tensor that the adapter changes, if there is one."""
    # Dimensions are sorted before they are compared, since a layer may hold its weight as [out, in] or [in, out].
    shapes = {name: _by_size(pair.weight_shape(False)) for name, pair in weights.items()}
    shapes |= {name: _by_size(stored.spec.shape) for name, stored in adapter.whole.items() if name not in shapes}
    renamed = dict(renames)
    if unknown := [name for name in renamed if name not in shapes]:
        raise EncodeError(f"renaming {unknown[0]}: expected a tensor that the adapter changes, got none of that name")
    plain = {name: shape for name, shape in shapes.items() if name not in renamed}
    rule = best_rule(plain, {name: _by_size(spec.shape) for name, spec in base.items()})
    # Renames precede the rule.
    targets = {name: renamed.get(name, base_name(name, rule)) for name in shapes}
    return rule, {name: target if target in base else None for name, target in targets.items()}


def _by_size(shape: tuple[int, ...]) -> TensorSpec:
    """Return a spec with the dimensions sorted; its dtype is meaningless."""
    return TensorSpec("U8", tuple(sorted(shape)))


def _checked(name: str, pair: LoraPair, counterpart: str | None, base: Specs) -> TensorSpec:
    """Return dtype and shape of the base tensor that a pair is added to."""
    if counterpart is None:
        detail = "expected a tensor of this name in the base, got none"
        text = "name the base that the adapter was trained on, or, if the tensor has another name there, give {renames}"
        raise EncodeError(f"{name}: {detail}", Remedy(text, {"renames": repr([(name, "NAME")])}))
    spec = base[counterpart]
    # As [out, in] and as [in, out]: one shape if it is square.
    shapes = dict.fromkeys(pair.weight_shape(transposed) for transposed in (False, True))
    if spec.shape not in shapes or spec.dtype not in CODED_DTYPES:
        detail = f"expected {' or '.join(str([*shape]) for shape in shapes)} of floats in the base"
        raise EncodeError(f"{name}: {detail}, got {spec}", Remedy("name the base that the adapter was trained on"))
    return spec


def is_transposed(pair: LoraPair, shape: tuple[int, ...], otherwise: bool) -> bool:
    """Return whether a model holds a linear weight as [in, out].

    Parameters
    ----------
    pair : LoraPair
        The pair that changes it.
    shape : tuple of int
        Shape of the weight.
    otherwise : bool
        Result for a square weight, whose shape fits both.
    """
    plain, transposed = pair.weight_shape(False), pair.weight_shape(True)
    return otherwise if plain == transposed else shape == transposed
