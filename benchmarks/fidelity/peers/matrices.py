"""The matrices of one fine-tune's delta, with their singular value decompositions made once."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class Spectrum(NamedTuple):
    """Thin SVD of a matrix [m, n], k = min(m, n): u [m, k], s [k] descending and v [k, n], all float32."""

    u: Tensor
    s: Tensor
    v: Tensor


class Matrices(Mapping[str, Tensor]):
    """Float32 matrices by name, and their thin SVDs on demand, kept for all peers and settings.

    Parameters
    ----------
    tensors
        Float32 matrices by name.
    folder
        Where SVDs are kept beyond the life of the process, a file each that is mapped into memory; in memory if None.

    Examples
    --------
    >>> matrices = Matrices({"bert.embeddings.word_embeddings.weight": torch.ones(3, 2), "w": torch.eye(2)})
    >>> matrices.svd("w").s.tolist(), list(matrices.without_embeddings())
    ([1.0, 1.0], ['w'])
    """

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path | None = None) -> None:
        for name, tensor in tensors.items():
            if tensor.ndim != 2 or tensor.dtype != torch.float32:
                raise ValueError(f"{name}: expected a float32 matrix, found {tensor.dtype} {list(tensor.shape)}")
        self._tensors, self._folder = dict(tensors), folder
        self._spectra: dict[tuple[str, Callable[[Tensor], Tensor] | None], Spectrum] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def svd(self, name: str, change: Callable[[Tensor], Tensor] | None = None) -> Spectrum:
        """SVD of a matrix, or of what the function ``change`` makes of it; computed the first time only."""
        key = name, change
        if key not in self._spectra:
            matrix = change(self[name]) if change else self[name]
            file = f"{name}.{change.__name__ if change else 'delta'}.safetensors"
            self._spectra[key] = _stored_svd(matrix, self._folder / file) if self._folder else thin_svd(matrix)
        return self._spectra[key]

    def without_embeddings(self) -> "Matrices":
        """The matrices that are no embeddings, sharing the SVDs."""
        rest = Matrices({name: tensor for name, tensor in self.items() if not is_embedding(name)}, self._folder)
        rest._spectra = self._spectra
        return rest


def is_embedding(name: str) -> bool:
    """Return whether a matrix is a table of embeddings (of words, positions, segments), by its name."""
    return "embed" in name


def thin_svd(matrix: Tensor) -> Spectrum:
    """SVD with the largest entry of each left vector positive, as some peers' results depend on the signs.

    Vectors of singular values that are zero to float32 precision are zero themselves.
    """
    rows, columns = matrix.shape
    if rows < columns:
        v, s, u = _tall_svd(matrix.T)
    else:
        u, s, v = _tall_svd(matrix)
    signs = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
    return Spectrum((u * signs).float().contiguous(), s.float(), (v * signs).T.float().contiguous())


def _stored_svd(matrix: Tensor, path: Path) -> Spectrum:
    """SVD out of a file, which is written where there is none, or that of another matrix by its shape or norm."""
    if path.exists():
        spectrum = Spectrum(**load_file(path))
        energies = [float(tensor.double().square().sum()) for tensor in (spectrum.s, matrix)]
        if (len(spectrum.u), spectrum.v.shape[1]) == matrix.shape and math.isclose(*energies, rel_tol=1e-4):
            return spectrum
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    save_file(thin_svd(matrix)._asdict(), unfinished)
    unfinished.rename(path)
    return Spectrum(**load_file(path))


def _tall_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U [m, k], s [k] and V [n, k] of a matrix with m >= n, by the eigenvectors of its n x n Gram matrix.

    That is seconds faster than an SVD for embeddings. Squares in float64 have all the digits that float32 deltas have.
    """
    exact = matrix.double()
    squares, vectors = torch.linalg.eigh(exact.T @ exact)
    s, v = squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)
    return exact @ v * torch.where(s > 1e-7 * s[0], 1 / s, 0.0), s, v
