"""The quantized weights of a checkpoint: those that can be dequantized, and those of schemes that cannot."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtscodec.checkpoints.checkpoint import Checkpoint, Specs
from dtscodec.checkpoints.quantized.bitsandbytes import find_four_bit, find_int8
from dtscodec.checkpoints.quantized.companions import NEVER_QUANTIZED, companions_of, is_named_companion, is_quantized
from dtscodec.checkpoints.quantized.four_bit_floats import find_expert_blocks, find_packed_floats
from dtscodec.checkpoints.quantized.packed_integers import find_packed
from dtscodec.checkpoints.quantized.quantization_settings import QuantizationSettings, read_quantization_settings
from dtscodec.checkpoints.quantized.quantized_weight import FindWeights, QuantizedWeight
from dtscodec.checkpoints.quantized.scaled_weights import FP8, find_scaled
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.errors import Remedy
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

_SCHEMES: tuple[FindWeights, ...] = (
    find_four_bit,
    find_int8,
    find_packed,
    find_packed_floats,
    find_expert_blocks,
    find_scaled,
)
"""The schemes that can be dequantized. Tensors that one scheme takes are not offered to those after it."""

_OTHERS = (
    (re.compile(r"(?:.*\.)?(?:qweight)"), "GPTQ or AWQ"),
    (re.compile(r".*\.W_q"), "HQQ"),
    (re.compile(r".*\._data"), "quanto"),
    (re.compile(r".*(?:_qdata|:\w+)"), "torchao"),
    (re.compile(r".*\.(?:codes|indices)"), "vector quantization"),
    (re.compile(r".*_packed"), "compressed-tensors"),
)
"""Names of codes in schemes that are not dequantized, because the checkpoint alone does not determine their layout."""

UNSCALED_FP8 = "FP8 without scales"
"""Name of the scheme of weights that were cast to FP8: their values are what is stored."""

_DESCRIPTIONS = re.compile(
    r"(?:.*\.)?weight_format|(?:.*\.)?\w*_(?:zero_points?|shape|g_idx|scales?)|(?:.*\.)?g_idx|(?:.*\.)?qzeros"
)
"""Names of tensors that describe quantized weights, in dtypes that are not those of floats."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """The quantized weights of a checkpoint.

    Parameters
    ----------
    settings : QuantizationSettings
        The settings in its ``config.json``.
    weights : mapping of str to QuantizedWeight
        Those that can be dequantized, by name, ascending.
    others : mapping of str to str
        Codes of all others -> name of their scheme.
    dropped : frozenset of str
        Tensors that the dequantized checkpoint does not have.
    """

    settings: QuantizationSettings
    weights: Mapping[str, QuantizedWeight]
    others: Mapping[str, str]
    dropped: frozenset[str]

    def __bool__(self) -> bool:
        """Return whether the checkpoint has quantized weights."""
        return bool(self.weights or self.others)

    @property
    def remedy(self) -> Remedy:
        """Advice to a user whose other checkpoint is not quantized."""
        if not self.others:
            return Remedy("read the base dequantized with {dequantize_base}", {"dequantize_base": "True"})
        return Remedy("dequantize it with the library that quantized it, and name the result as the base")

    @property
    def schemes(self) -> frozenset[str]:
        """Names of all schemes."""
        return frozenset({weight.scheme for weight in self.weights.values()} | set(self.others.values()))


def find_quantization(checkpoint: Checkpoint) -> Quantization:
    """Return the quantized weights of a checkpoint. Only tensors of a few bytes that describe others are read.

    Parameters
    ----------
    checkpoint : Checkpoint
        The checkpoint.

    Raises
    ------
    CheckpointError
        The description of a quantized weight is not valid.
    """
    if all(spec.dtype in NEVER_QUANTIZED for spec in checkpoint.specs.values()):
        return Quantization(QuantizationSettings(), {}, {}, frozenset())
    settings = read_quantization_settings(checkpoint.directory)
    left = dict(checkpoint.specs)
    weights: dict[str, QuantizedWeight] = {}

    def read(name: str) -> "Tensor":
        return tensor_from_bytes(checkpoint.read(name), checkpoint.specs[name])

    # Each scheme takes its tensors from those that the schemes before it left.
    for find in _SCHEMES:
        for weight in list(find(left, settings, read)):
            weights[weight.name] = weight
            for part in weight.parts:
                left.pop(part, None)
    others = dict(_other_codes(left, checkpoint.specs))
    parts = {part for weight in weights.values() for part in weight.parts}
    dropped = frozenset(parts | _beside_weights(checkpoint.specs, weights))
    return Quantization(settings, dict(sorted(weights.items())), others, dropped)


def _beside_weights(specs: Specs, weights: Mapping[str, QuantizedWeight]) -> set[str]:
    """Return the tensors that are dropped with the codes, such as scales of a layer's inputs."""
    if not weights:
        return set()
    # Other floats in the same modules, such as biases, are parameters of the dequantized model.
    floats = {name for name in companions_of(specs, {}, dict.fromkeys(specs)) if is_named_companion(name, weights)}
    others = {name for name, spec in specs.items() if spec.dtype not in CODED_DTYPES and _DESCRIPTIONS.fullmatch(name)}
    return (floats | others) - weights.keys()


def _other_codes(left: Specs, specs: Specs) -> Iterator[tuple[str, str]]:
    """Yield the codes that no scheme has taken, and the name of their scheme."""
    codes = {n: s for n, s in left.items() if is_quantized(n, s) and not _DESCRIPTIONS.fullmatch(n)}
    scaled = _modules_with_companions(specs) if codes else frozenset[str]()
    for name, spec in codes.items():
        is_scaled = _module_of(name) in scaled
        # Bytes without a scale in their module may be a table of the model.
        if spec.dtype in FP8 or name.endswith("qweight") or is_scaled:
            yield name, _name_of_other(name, spec, specs, is_scaled)


def _name_of_other(name: str, spec: TensorSpec, specs: Specs, is_scaled: bool) -> str:
    if name + "_scale_2" in specs:
        return "NVFP4 of modelopt"
    if name + "_scales" in specs:
        return "EETQ"
    if spec.dtype in FP8 and not is_scaled:
        return UNSCALED_FP8
    known = (scheme for pattern, scheme in _OTHERS if pattern.fullmatch(name))
    return next(known, f"an unknown scheme of {spec.dtype}")


def _modules_with_companions(specs: Specs) -> frozenset[str]:
    """Return the modules in which quantized weights have companions."""
    modules: defaultdict[str, dict[str, TensorSpec]] = defaultdict(dict)
    for name, spec in specs.items():
        modules[_module_of(name)][name] = spec
    return frozenset(module for module, own in modules.items() if companions_of(own, {}, dict.fromkeys(own)))


def _module_of(name: str) -> str:
    return name.rpartition(".")[0]
