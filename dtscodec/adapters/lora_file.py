"""Read and write LoRA adapters of PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.peft_config import CONFIG_NAME, MERGE_FIRST, LoraSettings, parse_settings
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes, tensor_spec
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.files.atomic import atomic_directory, check_new_directory
from dtscodec.files.output_file import output_file
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.storage.open_file import WHOLE
from dtscodec.storage.storage_errors import read_errors

WEIGHTS_NAME = "adapter_model.safetensors"
OLD_WEIGHTS_NAME = "adapter_model.bin"
OUR_FILES = frozenset({CONFIG_NAME, WEIGHTS_NAME})
"""The files that an adapter consists of. A directory with any other file is never replaced."""

PREFIX = "base_model.model."
"""Prefix of all tensor names in an adapter of PEFT."""
A, B = "lora_A.weight", "lora_B.weight"
EMBEDDING_A, EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"
_PART = re.compile(rf"(.+)\.({re.escape(A)}|{re.escape(B)}|{EMBEDDING_A}|{EMBEDDING_B})")


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """A LoRA adapter.

    Parameters
    ----------
    settings : LoraSettings
        Ranks and scales of the pairs.
    pairs : mapping of str to LoraPair
        A and B by module. Names are those of the model, without PEFT's prefix.
    whole : mapping of str to StoredTensor
        Tensors that replace those of the model, by their names in the model: `modules_to_save`, biases, copies of
        embeddings.

    Raises
    ------
    ValueError
        The rank of a pair is not the one in the settings.
    """

    settings: LoraSettings
    pairs: Mapping[str, LoraPair]
    whole: Mapping[str, StoredTensor]

    def __post_init__(self) -> None:
        for module, pair in self.pairs.items():
            # The scale depends on the rank, so the configuration must state the true one.
            if pair.rank != (expected := self.settings.rank_of(module)):
                raise ValueError(f"{module}: expected the rank {expected} of {CONFIG_NAME}, got {pair.rank}")


def read_adapter(directory: Path) -> LoraAdapter:
    """Read an adapter that PEFT saved; the inverse of `write_adapter`.

    Parameters
    ----------
    directory : Path
        The adapter's directory, local or on the Hub.

    Raises
    ------
    CheckpointError
        The adapter is missing, malformed, or no plain LoRA.
    """
    config = directory / CONFIG_NAME
    with read_errors(config):
        if not config.is_file():
            detail = "expected the directory of an adapter that PEFT saved, got none with that file"
            raise CheckpointError(f"{config}: {detail}")
        settings = parse_settings(config.read_bytes(), str(config))
    weights = weights_of(directory)
    with open_checkpoint(weights, WHOLE) as checkpoint:
        try:
            return LoraAdapter(settings, *_read_tensors(checkpoint, weights))
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(f"{weights}: {error}") from error


def weights_of(directory: Path) -> Path:
    """Return the file that holds an adapter's tensors.

    Parameters
    ----------
    directory : Path
        The adapter's directory, local or on the Hub.

    Raises
    ------
    CheckpointError
        There is no such file.
    """
    with read_errors(directory):
        for name in (WEIGHTS_NAME, OLD_WEIGHTS_NAME):
            if (directory / name).is_file():
                return directory / name
    raise CheckpointError(f"{directory}: expected {WEIGHTS_NAME} or {OLD_WEIGHTS_NAME}, got neither")


def _read_tensors(checkpoint: Checkpoint, location: Path) -> tuple[dict[str, LoraPair], dict[str, StoredTensor]]:
    """Return an adapter's pairs by module, and the tensors that replace the model's by name."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    whole = {}
    for key, spec in checkpoint.specs.items():
        if not key.startswith(PREFIX):
            problem = f"{location}: expected tensors under {PREFIX!r}, got {key!r:.80}"
            raise CheckpointError(problem, Remedy("save the adapter with PEFT"))
        name = key.removeprefix(PREFIX)
        # Tensors are parts of pairs, parts of other kinds of adapter, or whole tensors of the model.
        if match := _PART.fullmatch(name):
            if spec.dtype not in CODED_DTYPES:
                raise ValueError(f"{key}: expected F16, BF16, F32 or F64, got {spec}")
            parts[match[1]][match[2]] = tensor_from_bytes(checkpoint.read(key), spec)
        elif "lora_" in name or "trainable_tokens" in name:
            problem = f"{location}: expected the tensors of a plain LoRA, got {key!r:.80}"
            raise CheckpointError(problem, MERGE_FIRST)
        else:
            # In a layer that PEFT wraps, the original tensor is `base_layer.weight`.
            name = name.replace(".base_layer.", ".")
            whole[name] = StoredTensor(name, spec, checkpoint.read(key))
    return {module: _pair(module, found) for module, found in parts.items()}, whole


def _pair(module: str, parts: Mapping[str, Tensor]) -> LoraPair:
    # PEFT has names of its own for the matrices of an embedding.
    for a, b in ((A, B), (EMBEDDING_A, EMBEDDING_B)):
        if parts.keys() == {a, b}:
            try:
                return LoraPair(parts[a], parts[b], a == EMBEDDING_A)
            except ValueError as error:
                raise ValueError(f"{module}: {error}") from error
    raise ValueError(f"{module}: expected an A and a B, got {', '.join(sorted(parts))}")


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
        with output_file(directory / CONFIG_NAME, shown=out / CONFIG_NAME) as file:
            file.write((json.dumps(document, indent=2, sort_keys=True) + "\n").encode())
        weights = directory / WEIGHTS_NAME
        write_checkpoint(weights, specs, lambda name: tensor_bytes(tensors[name]), metadata={"format": "pt"})
        return weights.stat().st_size
