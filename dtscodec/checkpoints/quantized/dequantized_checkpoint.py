"""A quantized checkpoint, read as if its weights were stored plain (spec section 7.1)."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from dtscodec.checkpoints.checkpoint import Checkpoint, Signature, Specs
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.checkpoints.quantized.find_quantization import Quantization, find_quantization
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes, torch_dtype
from dtscodec.errors import CheckpointError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import DType, TensorSpec
from dtscodec.format.naming import utf8

HowToDequantize: TypeAlias = "bool | DType | None"
"""Dtype to which quantized weights are dequantized: True for that of the configuration, False or None to read codes."""


class DequantizedCheckpoint:
    """A `Checkpoint` over a quantized one: each quantized weight is one tensor of floats in place of its parts.

    Parameters
    ----------
    stored : Checkpoint
        The quantized checkpoint; closed by `close`.
    quantization : Quantization
        Its quantized weights.
    dtype : {"BF16", "F16", "F32"}
        Dtype of the dequantized weights.

    Raises
    ------
    CheckpointError
        A shape is not valid.
    """

    def __init__(self, stored: Checkpoint, quantization: Quantization, dtype: DType) -> None:
        self.stored, self.quantization, self.dtype = stored, quantization, dtype
        plain = {name: spec for name, spec in stored.specs.items() if name not in quantization.dropped}
        try:
            weights = {name: TensorSpec(dtype, weight.shape) for name, weight in quantization.weights.items()}
        except ValueError as error:
            raise CheckpointError(f"{stored.location}: {error}") from error
        specs = plain | weights
        self.specs: Specs = {name: specs[name] for name in sorted(specs, key=utf8)}
        self.aliases: Mapping[str, str] = {
            name: first for name, first in stored.aliases.items() if name in plain and first in plain
        }

    @property
    def location(self) -> str:
        """Name of the checkpoint, for messages."""
        return self.stored.location

    @property
    def metadata(self) -> Mapping[str, str]:
        """Metadata in the header of the file."""
        return self.stored.metadata

    @property
    def directory(self) -> Path | None:
        """Directory of auxiliary files."""
        return self.stored.directory

    @property
    def is_directory(self) -> bool:
        """True if the checkpoint was opened as a directory."""
        return self.stored.is_directory

    @property
    def stem(self) -> str:
        """Stem of its weight files."""
        return self.stored.stem

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders with weights of their own."""
        return self.stored.folders

    @property
    def passed_over(self) -> tuple[PassedOverFile, ...]:
        """Files of a directory that hold weights but were not read."""
        return self.stored.passed_over

    @property
    def weight_files(self) -> frozenset[str]:
        """Names of the files that hold the tensors."""
        return self.stored.weight_files

    @property
    def staging(self) -> Path | None:
        """Folder for ranges of remote files."""
        return self.stored.staging

    def read(self, name: str) -> Bytes:
        """Return the bytes of a tensor, dequantized if it is quantized: uint8 [nbytes]."""
        weight = self.quantization.weights.get(name)
        if weight is None:
            return self.stored.read(name)
        import torch

        out = torch.empty(weight.shape, dtype=torch_dtype(self.dtype), device="cpu")
        weight.dequantize(lambda part: tensor_from_bytes(self.stored.read(part), self.stored.specs[part]), out)
        return tensor_bytes(out)

    def prefetch(self, name: str) -> None:
        """Begin to read a tensor in the background, where that helps."""
        for part in self._parts(name):
            self.stored.prefetch(part)

    def signature(self, name: str) -> Signature | None:
        """Return the signatures of all parts of a tensor, the newest first, and how they are dequantized."""
        weight = self.quantization.weights.get(name)
        if weight is None:
            return self.stored.signature(name)
        found = [self.stored.signature(part) for part in weight.parts]
        known = [signature for signature in found if signature is not None]
        if len(known) < len(found):
            return None
        # The time of change is the fourth value of a signature.
        known.sort(key=lambda signature: int(signature[3]), reverse=True)
        return (*(value for signature in known for value in signature), self.dtype, *weight.settings)

    def close(self) -> None:
        """Close files and free memory."""
        self.stored.close()

    def __enter__(self) -> "DequantizedCheckpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _parts(self, name: str) -> tuple[str, ...]:
        weight = self.quantization.weights.get(name)
        return (name,) if weight is None else weight.parts


def read_dequantized(checkpoint: Checkpoint, how: HowToDequantize) -> Checkpoint:
    """Return a view of a quantized checkpoint with plain weights; a plain checkpoint is returned itself.

    Weights of schemes that cannot be dequantized remain as they are stored: `encode` refuses them, and so do readers of
    a pack that uses them.

    Parameters
    ----------
    checkpoint : Checkpoint
        Any checkpoint.
    how : bool, {"BF16", "F16", "F32"} or None
        Dtype of the dequantized weights; True for that of the model's configuration, else bfloat16. With False or None
        any checkpoint is returned as it is.

    Raises
    ------
    CheckpointError
        The description of a quantized weight is not valid.
    """
    if not how:
        return checkpoint
    if isinstance(checkpoint, DequantizedCheckpoint):
        return checkpoint if how in (True, checkpoint.dtype) else read_dequantized(checkpoint.stored, how)
    quantization = find_quantization(checkpoint)
    if not quantization.weights:
        return checkpoint
    return DequantizedCheckpoint(checkpoint, quantization, quantization.settings.dtype if how is True else how)
