"""Whether what a scheme gives back is the checkpoint that went in."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

FILE, TENSORS = "file", "tensors"
"""What comes back equal: the file with its header, or all tensors only."""


def what_is_equal(original: Path, decoded: Path) -> str | None:
    """Return what of two files is equal: the file by SHA-256, or all tensors bit for bit; None if neither."""
    if sha256(original) == sha256(decoded):
        return FILE
    ours, theirs = load_file(original), load_file(decoded)
    alike = ours.keys() == theirs.keys() and all(_equal(ours[name], theirs[name]) for name in ours)
    return TENSORS if alike else None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
        return digest.hexdigest()


def _equal(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    # By bytes: NaN is equal to itself, and zeros have signs.
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))
