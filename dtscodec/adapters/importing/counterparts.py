"""Tensors that an adapter changes -> their counterparts in the base, by names alone."""

from collections.abc import Mapping

from dtscodec.adapters.importing.weight_change import WeightChange
from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.name_match import Rule
from dtscodec.checkpoints.names.name_matching import best_rule
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.naming import base_name

NAME_TRAINED_BASE = Remedy("name the base that the adapter was trained on")

DEQUANTIZE = Remedy(
    "name the base before it was quantized, or give {dequantize_base} to read it dequantized",
    {"dequantize_base": "True"},
)


def find_counterparts(
    changes: Mapping[str, WeightChange], base: Specs, renames: Mapping[str, str]
) -> tuple[Rule, dict[str, str | None]]:
    """Match the tensors that an adapter changes to a base by names, which are equal or differ by one leading prefix.

    Parameters
    ----------
    changes : mapping of str to WeightChange
        The tensors that the adapter changes.
    base : mapping of str to TensorSpec
        Dtypes and shapes of the base's tensors.
    renames : mapping of str to str
        Tensors whose names differ in another way: names in the base by names in the fine-tune.

    Returns
    -------
    (Rule, dict of str to str or None)
        The naming rule, and the base tensor of each tensor, None where there is none of that name.

    Raises
    ------
    EncodeError
        The adapter does not change a tensor of `renames`, or two rules fit equally well.
    """
    if unknown := [name for name in renames if name not in changes]:
        raise EncodeError(f"renaming {unknown[0]}: expected a tensor that the adapter changes, got none of that name")
    # Dimensions are sorted before they are compared, since a layer may hold its weight as [out, in] or [in, out].
    shapes = {name: _by_size(shape) for name, change in changes.items() if (shape := change.shape) is not None}
    plain = {name: shape for name, shape in shapes.items() if name not in renames}
    rule = best_rule(plain, {name: _by_size(spec.shape) for name, spec in base.items()})
    # Renames precede the rule.
    targets = {name: renames.get(name, base_name(name, rule)) for name in changes}
    return rule, {name: target if target in base else None for name, target in targets.items()}


def _by_size(shape: tuple[int, ...]) -> TensorSpec:
    """Return a spec with the dimensions sorted; its dtype is meaningless."""
    return TensorSpec("U8", tuple(sorted(shape)))


def check_pair(name: str, pair: LoraPair, counterpart: str | None, base: Specs, shape: tuple[int, ...] | None) -> bool:
    """Check that a pair fits the weight that it is added to, and return whether the weight must be [in, out].

    Parameters
    ----------
    name : str
        Name of the weight.
    pair : LoraPair
        The pair.
    counterpart : str or None
        The weight in the base.
    base : mapping of str to TensorSpec
        Dtypes and shapes of the base's tensors.
    shape : tuple of int or None
        Shape of the weight where it is not the base's: that of an embedding of a grown vocabulary.

    Returns
    -------
    bool
        True if the weight fits as [in, out] only.

    Raises
    ------
    EncodeError
        The weight is missing in the base, has another shape, or is not floating-point.
    """
    if counterpart is None:
        detail = "expected a tensor of this name in the base, got none"
        text = "name the base that the adapter was trained on, or, if the tensor has another name there, give {renames}"
        raise EncodeError(f"{name}: {detail}", Remedy(text, {"renames": repr([(name, "NAME")])}))
    spec = base[counterpart]
    # As [out, in] and as [in, out]: one shape if it is square.
    shapes = dict.fromkeys(pair.weight_shape(transposed) for transposed in (False, True))
    if spec.dtype not in CODED_DTYPES:
        problem = f"{name}: expected floats in the base that a product can be added to, got {spec}"
        raise EncodeError(problem, DEQUANTIZE)
    if (shape or spec.shape) not in shapes:
        detail = f"expected {' or '.join(str([*shape]) for shape in shapes)} in the base"
        raise EncodeError(f"{name}: {detail}, got {spec}", NAME_TRAINED_BASE)
    return (shape or spec.shape) != pair.weight_shape(False)
