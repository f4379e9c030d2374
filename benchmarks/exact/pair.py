"""A base and a fine-tune, as files."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from benchmarks.exact.safetensors_layout import lay_out


@dataclass(frozen=True, slots=True)
class Pair:
    """Two weight files.

    Parameters
    ----------
    name : str
        Name of the pair.
    base, fine : Path
        Safetensors files.
    laid_out : Path
        The base's tensors by the names and at the places of the fine-tune's, zeros for tensors that are new. Peers
        take this file as their base: they do not find tensors of other names.
    """

    name: str
    base: Path
    fine: Path
    laid_out: Path

    @classmethod
    def of(cls, name: str, base: Path, fine: Path, folder: Path) -> "Pair":
        """Return a pair; its laid-out base is made in a folder unless it is there."""
        laid_out = folder / f"{name.replace(' ', '-')}-base.safetensors"
        if not laid_out.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as staging:
                lay_out(base, fine, Path(staging, laid_out.name)).rename(laid_out)
        return cls(name, base, fine, laid_out)

    def weights(self) -> int:
        """Return the number of the fine-tune's weights."""
        return sum(tensor.numel() for tensor in load_file(self.fine).values())

    def largest_tensor(self) -> int:
        """Return the bytes of the fine-tune's largest tensor."""
        return max(tensor.nbytes for tensor in load_file(self.fine).values())

    @property
    def size(self) -> int:
        """Bytes of the fine-tune's file."""
        return self.fine.stat().st_size
