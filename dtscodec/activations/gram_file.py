"""Files of Gram matrices: second moments and means of the inputs of a model's layers.

The file is safetensors. Under the name of a weight it has the Gram matrix, the mean of x x^T over that layer's inputs
x, [d_in, d_in], and under ``NAME#mean`` the mean of x, [d_in], which is optional. The metadata has, each as JSON:
``same``, weights that share the inputs of another (name -> the other name); ``rows``, numbers of inputs by name;
``input_first``, names of weights that are [d_in, d_out], as GPT-2's are.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.dtypes import TensorSpec

MEAN = "#mean"
"""Suffix of a weight's name in the name of its inputs' mean."""


@dataclass(frozen=True, slots=True)
class Gram:
    """The second moment and the mean of a linear layer's inputs.

    Parameters
    ----------
    moment : float64 [d_in, d_in]
        Mean of x x^T; the mean of x is not removed.
    mean : float64 [d_in], optional
        Mean of x.
    rows : int
        Number of inputs; 0 if it is not known.
    input_first : bool
        Whether the layer's weight is [d_in, d_out].
    """

    moment: Tensor
    mean: Tensor | None = None
    rows: int = 0
    input_first: bool = False

    def damped(self, damping: float) -> Tensor:
        """Return the moment plus a multiple of the identity: float64 [d_in, d_in].

        Parameters
        ----------
        damping : float
            The multiple, relative to the mean of the moment's diagonal. At 0 only layer outputs matter; far above 1 all
            elements of a weight have about the same influence.
        """
        size = len(self.moment)
        return self.moment + damping * self.moment.trace() / size * torch.eye(size, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class GramSet:
    """The Gram matrices of a model, in memory.

    Parameters
    ----------
    grams : mapping
        Gram matrices by the name of the weight.
    same : mapping
        Weights that share the inputs of another: name -> the name in `grams`.
    input_first : frozenset
        Names of the weights that are [d_in, d_out].
    """

    grams: Mapping[str, Gram]
    same: Mapping[str, str] = field(default_factory=dict)
    input_first: frozenset[str] = frozenset()

    def renamed(self, names: Mapping[str, str]) -> "GramSet":
        """Return the Gram matrices under other names.

        Weights that are not renamed are left out. A Gram matrix remains if at least one weight that shares it is
        renamed.

        Parameters
        ----------
        names : mapping
            New names by old ones.
        """
        # The first renamed weight that uses a Gram matrix names it; the others refer to that one.
        heads: dict[str, str] = {}
        same: dict[str, str] = {}
        for name, new in names.items():
            old = self.same.get(name, name)
            if old in self.grams and (head := heads.setdefault(old, new)) != new:
                same[new] = head
        grams = {new: self.grams[old] for old, new in heads.items()}
        return GramSet(grams, same, frozenset(new for old, new in names.items() if old in self.input_first))


class GramFile:
    """A file of Gram matrices, which are read one at a time; a context manager. `save_grams` writes such files.

    Parameters
    ----------
    source : path or mapping of tensors
        The file, or its tensors.

    Raises
    ------
    CheckpointError
        It cannot be read, or has other tensors than Gram matrices and means.
    """

    def __init__(self, source: Source) -> None:
        self._file: Checkpoint = open_checkpoint(source)
        try:
            for name, spec in self._file.specs.items():
                self._check(name, spec)
            self._same, self._rows = self._json("same", dict), self._json("rows", dict)
            self._input_first = frozenset(self._json("input_first", list))
        except BaseException:
            self._file.close()
            raise

    @property
    def location(self) -> str:
        """The name of the file, for messages."""
        return self._file.location

    def _json(self, key: str, kind: type[Any]) -> Any:
        text = self._file.metadata.get(key)
        try:
            found = kind() if text is None else json.loads(text)
        except (ValueError, RecursionError):  # JSON that nests too deeply raises RecursionError.
            found = None
        if not isinstance(found, kind) or not all(isinstance(name, str) for name in found):
            raise CheckpointError(f"{self.location}: expected JSON of names under {key!r}, got {text!r:.60}")
        return found

    def _check(self, name: str, spec: TensorSpec) -> None:
        is_mean, shape = name.endswith(MEAN), spec.shape
        fits = len(shape) == 1 if is_mean else len(shape) == 2 and shape[0] == shape[1]
        if not fits or spec.dtype not in ("F32", "F64"):
            wanted = "a mean [d_in]" if is_mean else "a Gram matrix [d_in, d_in]"
            raise CheckpointError(f"{self.location}: {name!r}: expected {wanted} of F32 or F64, got {spec}")

    def digest(self) -> bytes:
        """Return a SHA-256 over the content, which does not depend on the path. Reads the whole file.

        Raises
        ------
        CheckpointError
            The file was changed or cannot be read.
        """
        leaves = {name: leaf(spec, self._file.read(name)) for name, spec in self._file.specs.items()}
        metadata = json.dumps(dict(self._file.metadata), sort_keys=True)
        return hashlib.sha256(base_digest(leaves) + metadata.encode()).digest()

    def __contains__(self, name: str) -> bool:
        return self._same.get(name, name) in self._file.specs

    def read(self, name: str) -> Gram | None:
        """Return the Gram matrix of a weight's inputs; None if the file has none.

        Parameters
        ----------
        name : str
            The name of the weight.

        Raises
        ------
        CheckpointError
            The file was changed, or the Gram matrix has NaN or infinity.
        """
        stored = self._same.get(name, name)
        if stored not in self._file.specs:
            return None
        return Gram(self._tensor(stored), self._mean(stored), int(self._rows.get(stored, 0)), name in self._input_first)

    def means(self) -> dict[str, Tensor]:
        """Return all means of inputs by weight: float64 [d_in]. A file may have means without Gram matrices.

        Raises
        ------
        CheckpointError
            The file was changed, or a mean has NaN or infinity.
        """
        names = [name.removesuffix(MEAN) for name in self._file.specs if name.endswith(MEAN)]
        found = {name: mean for name in names if (mean := self._mean(name)) is not None}
        return found | {name: found[stored] for name, stored in self._same.items() if stored in found}

    def _mean(self, name: str) -> Tensor | None:
        return self._tensor(name + MEAN) if name + MEAN in self._file.specs else None

    def _tensor(self, name: str) -> Tensor:
        tensor = tensor_from_bytes(self._file.read(name), self._file.specs[name]).double()
        if not tensor.isfinite().all():
            raise CheckpointError(f"{self.location}: {name!r}: expected finite numbers, got others")
        return tensor

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "GramFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def save_grams(out: Path, grams: GramSet, force: bool = False) -> None:
    """Write a file of Gram matrices, in float32. `GramFile` reads it.

    Parameters
    ----------
    out : Path
        The file, ``*.safetensors``.
    grams : GramSet
        The Gram matrices, as `dtscodec.collect_grams` returns them.
    force : bool
        Replace a file that exists.

    Raises
    ------
    OutputError
        It exists, or cannot be written.
    """
    tensors = {name: gram.moment for name, gram in grams.grams.items()}
    tensors |= {name + MEAN: gram.mean for name, gram in grams.grams.items() if gram.mean is not None}
    specs = {name: TensorSpec("F32", tuple(tensor.shape)) for name, tensor in sorted(tensors.items())}
    metadata = {
        "same": json.dumps(dict(sorted(grams.same.items()))),
        "rows": json.dumps({name: gram.rows for name, gram in sorted(grams.grams.items())}),
        "input_first": json.dumps(sorted(grams.input_first)),
    }
    write_checkpoint(out, specs, lambda name: tensor_bytes(tensors[name].float()), metadata=metadata, force=force)
