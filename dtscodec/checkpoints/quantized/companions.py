"""Companions of quantized weights: the scales, zero points and code books without which their codes have no meaning.

A quantized weight cannot be coded, so it is stored exactly. Its companions may have dtypes that can be coded. But an
inexact scale, or one of another quantization, changes every weight that it belongs to, so companions are exact, too.

Libraries name companions in many ways. Most are recognized by their place: they are in the module of a quantized
weight, or their name continues its name. The others are recognized by name (`_KNOWN`).
"""

import re
from collections.abc import Container, Iterable, Mapping

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.format.dtypes import CODED_DTYPES, DType, TensorSpec

NEVER_QUANTIZED: frozenset[DType] = CODED_DTYPES | {"BOOL", "I64", "U64", "C64"}
"""Dtypes of plain weights, masks, positions and counters, in which no library stores quantized weights."""

_WIDE_INTEGERS: frozenset[DType] = frozenset({"I16", "U16", "I32", "U32"})
_CODES = re.compile(r".*(?:weight\w*|qzeros|_packed|_blocks|_qdata|\.W_q|\.codes|\.indices|:\w+)")
"""Names of codes that are packed into words, or that stand for vectors."""

_KNOWN = re.compile(
    r"(?:.*\.)?(?:"
    # Scales of activations, attention and its cache; those of weights that are named unlike their weight.
    r"(?:[qkvp]|kv|\w+_cache|prob_output|softmax|in|out|input|output|act|activation|weight)(?:_global)?"
    r"_(?:scales?|scale_inv|amax|absmax|zero_points?)(?:_\w+)?"
    # bitsandbytes.
    r"|SCB|(?:nested_)?(?:absmax|quant_map)"
    # Code books of vector quantization.
    r"|(?:res_)?centroids\.weight|codebooks?"
    r")"
)
"""Names of companions in any module of a checkpoint that has quantized weights."""


def companions_of(fine: Specs, base: Specs, counterpart: Mapping[str, str | None]) -> frozenset[str]:
    """Return the tensors of a fine-tune that could be coded but are companions of quantized weights.

    Parameters
    ----------
    fine, base : mapping
        Specs by name.
    counterpart : mapping
        Name of each tensor of the fine-tune -> name of its counterpart in the base, or None. A weight that is quantized
        in either checkpoint has companions.

    Examples
    --------
    >>> a = TensorSpec("F32", (8,))
    >>> specs = {"q.weight": TensorSpec("I8", (8, 8)), "q.bias": a, "q.SCB": a}
    >>> sorted(companions_of(specs, {}, dict.fromkeys(specs)))
    ['q.SCB']
    """
    spec_of = {name: (spec, base.get(counterpart[name] or "")) for name, spec in fine.items()}
    quantized = [name for name, specs in spec_of.items() if any(is_quantized(name, spec) for spec in specs if spec)]
    if not quantized:
        return frozenset()
    modules, wholes = set(map(_module_of, quantized)), set(_dotted_prefixes(quantized))
    names = frozenset(quantized)
    return frozenset(
        name
        for name, spec in fine.items()
        if spec.dtype in CODED_DTYPES
        # Codes may be packed in a tensor of floats; names of their companions then begin with its name and a dot.
        and (name in wholes or (not name.endswith("bias") and _is_companion(name, names, modules)))
    )


def is_quantized(name: str, spec: TensorSpec) -> bool:
    """Return whether a tensor holds the codes of quantized weights, by its dtype and name.

    Parameters
    ----------
    name, spec : str, TensorSpec
        The tensor.

    Examples
    --------
    >>> codes = TensorSpec("I32", (4, 8))
    >>> [is_quantized(name, codes) for name in ("q.qweight", "q.weight_packed", "embeddings.position_ids")]
    [True, True, False]
    """
    if spec.dtype in NEVER_QUANTIZED:
        return False
    # Masks are bytes, and positions are wide integers, too.
    return "mask" not in name if spec.dtype not in _WIDE_INTEGERS else _CODES.fullmatch(name) is not None


def _is_companion(name: str, quantized: frozenset[str], modules: set[str]) -> bool:
    """Return whether a tensor is a companion by its name, or as a parameter of the module of a quantized weight."""
    # A weight in the module of a quantized one is a weight of its own.
    is_parameter = not name.endswith("weight") and _module_of(name) in modules
    return is_named_companion(name, quantized) or is_parameter


def is_named_companion(name: str, quantized: Container[str]) -> bool:
    """Return whether a tensor belongs to a quantized weight, by its name alone.

    Parameters
    ----------
    name : str
        The tensor.
    quantized : container of str
        Names of all quantized weights. A name that continues one of these is a companion's: ``weight_scale``.

    Examples
    --------
    >>> [is_named_companion(name, {"q.weight"}) for name in ("q.weight.absmax", "q.input_scale", "q.bias", "q.gate")]
    [True, True, False, False]
    """
    is_continued = any(name[:at] in quantized for at in range(len(name)) if name[at] in "._:")
    return not name.endswith("bias") and (is_continued or _KNOWN.fullmatch(name) is not None)


def _module_of(name: str) -> str:
    """Return the module of a tensor: the name up to its last component, or to the one that is a weight's.

    >>> _module_of("q.weight"), _module_of("q.weight.absmax"), _module_of("q.weight._data"), _module_of("q.input_scale")
    ('q', 'q', 'q', 'q')
    """
    parts = name.split(".")
    return ".".join(parts[:-2] if len(parts) > 1 and parts[-2] in ("weight", "qweight") else parts[:-1])


def _dotted_prefixes(names: Iterable[str]) -> Iterable[str]:
    """Yield each name that others continue after a dot."""
    for name in names:
        at = name.rfind(".")
        while at > 0:
            yield name[:at]
            at = name.rfind(".", 0, at)
