"""What the inputs of a model's layers are like: second moments and means, in a file.

The file is safetensors. Under the name of a weight it has the mean of x x^T over that layer's inputs x, [d_in, d_in];
where they are known, under ``NAME#mean`` the mean of x, [d_in]. In the metadata, each as JSON: ``same``, weights that
see the inputs of another (later name -> that name); ``rows``, of how many inputs each was taken; ``input_first``, the
weights that are [d_in, d_out], as GPT-2 has them.
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
from dtscodec.checkpoints.content_digest import base_digest, leaf
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import TensorSpec

MEAN = "#mean"
"""What follows a weight's name in that of its inputs' mean."""


@dataclass(frozen=True, slots=True)
class Gram:
    """What the inputs of a linear layer are like.

    Parameters
    ----------
    moment : float64 [d_in, d_in]
        Mean of x x^T; the mean of x is not removed.
    mean : float64 [d_in], optional
        Mean of x.
    rows : int
        Of how many inputs; 0 if that is not known.
    input_first : bool
        Whether the weight is [d_in, d_out].
    """

    moment: Tensor
    mean: Tensor | None = None
    rows: int = 0
    input_first: bool = False

    def damped(self, damping: float) -> Tensor:
        """The moment, and on its diagonal a share of its mean diagonal: float64 [d_in, d_in].

        At 0 outputs are all that counts, far above 1 all elements of a weight count alike.
        """
        size = len(self.moment)
        return self.moment + damping * self.moment.trace() / size * torch.eye(size, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class GramSet:
    """The Gram matrices of a model, in memory.

    Parameters
    ----------
    grams : mapping
        By weight.
    same : mapping
        Weights that see the inputs of another: name -> the name in `grams`.
    input_first : frozenset
        The weights that are [d_in, d_out].
    """

    grams: Mapping[str, Gram]
    same: Mapping[str, str] = field(default_factory=dict)
    input_first: frozenset[str] = frozenset()

    def renamed(self, names: Mapping[str, str]) -> "GramSet":
        """The same by other names; what has none is left out, unless another one that has shares its inputs."""
        heads: dict[str, str] = {}
        same: dict[str, str] = {}
        for name, new in names.items():
            old = self.same.get(name, name)
            if old in self.grams and (head := heads.setdefault(old, new)) != new:
                same[new] = head
        grams = {new: self.grams[old] for old, new in heads.items()}
        return GramSet(grams, same, frozenset(new for old, new in names.items() if old in self.input_first))


class GramFile:
    """A file of Gram matrices, read one at a time. A context manager.

    Parameters
    ----------
    source : path or mapping of tensors
        See the module; `save_grams` writes such files, and other programs may.

    Raises
    ------
    CheckpointError
        It cannot be read, or its entries are no such matrices.
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
        """Its name, for messages."""
        return self._file.location

    def _json(self, key: str, kind: type[Any]) -> Any:
        text = self._file.metadata.get(key)
        try:
            found = kind() if text is None else json.loads(text)
        except (ValueError, RecursionError):
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
        """The 32 bytes that stand for all that is in it, wherever the file lies; reads all of it.

        Raises
        ------
        CheckpointError
            The file was changed or cannot be read.
        """
        leaves = {name: leaf(spec, self._file.read(name)) for name, spec in self._file.specs.items()}
        told = json.dumps(dict(self._file.metadata), sort_keys=True)
        return hashlib.sha256(base_digest(leaves) + told.encode()).digest()

    def __contains__(self, name: str) -> bool:
        return self._same.get(name, name) in self._file.specs

    def read(self, name: str) -> Gram | None:
        """What is known of the inputs of a weight; None if nothing is.

        Raises
        ------
        CheckpointError
            The file was changed, or holds NaN or infinity there.
        """
        held = self._same.get(name, name)
        if held not in self._file.specs:
            return None
        return Gram(self._tensor(held), self._mean(held), int(self._rows.get(held, 0)), name in self._input_first)

    def means(self) -> dict[str, Tensor]:
        """The means that are known of the inputs of weights, by weight: float64 [d_in]. A file may have no others.

        Raises
        ------
        CheckpointError
            The file was changed, or holds NaN or infinity there.
        """
        names = [name.removesuffix(MEAN) for name in self._file.specs if name.endswith(MEAN)]
        found = {name: mean for name in names if (mean := self._mean(name)) is not None}
        return found | {name: found[held] for name, held in self._same.items() if held in found}

    def _mean(self, held: str) -> Tensor | None:
        return self._tensor(held + MEAN) if held + MEAN in self._file.specs else None

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


def save_grams(out: Path, found: GramSet, force: bool = False) -> None:
    """Write a file of Gram matrices, in float32; `GramFile` is the inverse.

    Parameters
    ----------
    out : Path
        ``*.safetensors``.
    found : GramSet
    force : bool
        Replace what exists.

    Raises
    ------
    OutputError
        It exists, or cannot be written.
    """
    tensors = {name: gram.moment for name, gram in found.grams.items()}
    tensors |= {name + MEAN: gram.mean for name, gram in found.grams.items() if gram.mean is not None}
    specs = {name: TensorSpec("F32", tuple(tensor.shape)) for name, tensor in sorted(tensors.items())}
    metadata = {
        "same": json.dumps(dict(sorted(found.same.items()))),
        "rows": json.dumps({name: gram.rows for name, gram in sorted(found.grams.items())}),
        "input_first": json.dumps(sorted(found.input_first)),
    }
    write_checkpoint(out, specs, lambda name: tensor_bytes(tensors[name].float()), metadata=metadata, force=force)
