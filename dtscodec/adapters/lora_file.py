"""Write LoRA adapters of PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.peft_names import PREFIX
from dtscodec.checkpoints.directories.file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_spec
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.files.atomic import atomic_directory, check_new_directory
from dtscodec.files.output_file import output_file

OUR_FILES = frozenset({ADAPTER_CONFIG, ADAPTER_WEIGHTS[0]})
"""The files that an adapter consists of. A directory with any other file is never replaced."""

A, B = "lora_A.weight", "lora_B.weight"
EMBEDDING_A, EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"


def adapter_tensors(
    pairs: Mapping[str, LoraPair], whole: Mapping[str, Tensor], biases: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return an adapter's tensors by PEFT's names.

    Parameters
    ----------
    pairs : mapping of str to LoraPair
        A and B by module. They are converted to `dtype`.
    whole : mapping of str to Tensor
        Tensors that replace those of the model, by their names in the model. Their dtypes do not change.
    biases : mapping of str to Tensor
        The same for biases of layers that have a pair.
    dtype : torch.dtype
        Dtype of the pairs.
    """
    tensors = {PREFIX + name: tensor for name, tensor in whole.items()}
    tensors |= {f"{PREFIX}{name.removesuffix('bias')}base_layer.bias": bias for name, bias in biases.items()}
    for module, pair in pairs.items():
        a, b = (EMBEDDING_A, EMBEDDING_B) if pair.is_embedding else (A, B)
        tensors[f"{PREFIX}{module}.{a}"] = pair.a.to(dtype)
        tensors[f"{PREFIX}{module}.{b}"] = pair.b.to(dtype)
    return dict(sorted(tensors.items()))


def check_new_adapter(out: Path, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Raise OutputError if `write_adapter` would refuse to write; called before any work is done.

    Parameters
    ----------
    out, force, inputs
        As for `write_adapter`.
    """
    check_new_directory(out, force, inputs, OUR_FILES.__contains__)


def write_adapter(
    out: Path,
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    force: bool = False,
    inputs: Iterable[Path] = (),
) -> int:
    """Write an adapter as PEFT loads it; the inverse of `read_adapter`.

    Parameters
    ----------
    out : Path
        The directory to write.
    document : mapping
        The adapter's configuration, made by `settings_document`.
    tensors : mapping of str to Tensor
        The adapter's tensors, made by `adapter_tensors`.
    force : bool
        Replace a directory that exists, if it holds no files but those of an adapter.
    inputs : iterable of Path
        Files that must not be replaced, since they are still read.

    Returns
    -------
    int
        Size in bytes of the file of tensors.

    Raises
    ------
    OutputError
        The directory exists, or cannot be written.
    """
    specs = {name: tensor_spec(tensor) for name, tensor in tensors.items()}
    with atomic_directory(out, force, inputs, OUR_FILES.__contains__) as directory:
        with output_file(directory / ADAPTER_CONFIG, shown=out / ADAPTER_CONFIG) as file:
            file.write((json.dumps(document, indent=2, sort_keys=True) + "\n").encode())
        weights = directory / ADAPTER_WEIGHTS[0]
        write_checkpoint(weights, specs, lambda name: tensor_bytes(tensors[name]), metadata={"format": "pt"})
        return weights.stat().st_size
