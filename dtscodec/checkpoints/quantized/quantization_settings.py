"""The settings of a quantized checkpoint in its `config.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtscodec.format.dtypes import DType

_SECTIONS = ("quantization_config", "compression_config")
_DTYPES: Mapping[str, DType] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True, slots=True)
class QuantizationSettings:
    """The settings of a quantization that do not follow from its tensors.

    Parameters
    ----------
    method : str or None
        Name of the library or scheme, such as ``"fp8"`` or ``"gptq"``.
    dtype : {"BF16", "F16", "F32"}
        Dtype of the model's plain weights.
    block : (int, int) or None
        Rows and columns that share a scale.
    bits : frozenset of int
        Bits of packed integers; one number for each group of layers that is quantized alike.
    is_permuted : bool
        Whether columns are grouped in another order than they are stored in.
    """

    method: str | None = None
    dtype: DType = "BF16"
    block: tuple[int, int] | None = None
    bits: frozenset[int] = frozenset()
    is_permuted: bool = False


def read_quantization_settings(directory: Path | None) -> QuantizationSettings:
    """Return the settings in a model directory; those of a plain model in bfloat16 if there is no ``config.json``.

    Parameters
    ----------
    directory : Path or None
        The directory; None for tensors in memory.
    """
    try:
        document = json.loads((directory / "config.json").read_bytes()) if directory is not None else {}
    except (OSError, ValueError):
        # No such file, or no JSON: the schemes then go by the tensors alone.
        document = {}
    return parse_quantization_settings(document if isinstance(document, dict) else {})


def parse_quantization_settings(config: Mapping[str, Any]) -> QuantizationSettings:
    """Return the settings in the content of a ``config.json``.

    Parameters
    ----------
    config : mapping
        The document.

    Examples
    --------
    >>> section = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    >>> parse_quantization_settings({"dtype": "float16", "quantization_config": section})
    QuantizationSettings(method='fp8', dtype='F16', block=(128, 128), bits=frozenset(), is_permuted=False)
    """
    text = config.get("text_config")
    parts = [config, *([text] if isinstance(text, dict) else [])]
    section: dict[str, Any] = next((p[key] for p in parts for key in _SECTIONS if isinstance(p.get(key), dict)), {})
    names = [str(p.get(key)).removeprefix("torch.") for p in parts for key in ("dtype", "torch_dtype")]
    groups = section.get("config_groups")
    weights = [group.get("weights") or {} for group in (groups.values() if isinstance(groups, dict) else ())]
    blocks = [section.get("weight_block_size"), *(each.get("block_structure") for each in weights)]
    return QuantizationSettings(
        method=section.get("quant_method") if isinstance(section.get("quant_method"), str) else None,
        dtype=next((_DTYPES[name] for name in names if name in _DTYPES), "BF16"),
        block=next((block for each in blocks if (block := _block(each))), None),
        bits=frozenset(each["num_bits"] for each in weights if isinstance(each.get("num_bits"), int)),
        is_permuted=any(each.get("actorder") in ("group", True) for each in weights),
    )


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a quantized model that is stored dequantized: without the sections on quantization.

    Parameters
    ----------
    config : mapping
        The content of its ``config.json``.

    Examples
    --------
    >>> without_quantization({"text_config": {"quantization_config": {}, "dtype": "float16"}, "compression_config": {}})
    {'text_config': {'dtype': 'float16'}}
    """
    return {
        key: without_quantization(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _SECTIONS
    }


def _block(value: object) -> tuple[int, int] | None:
    match value:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
        case _:
            return None
