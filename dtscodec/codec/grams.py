"""What the inputs of a model's layers are like: second moments and means, in a file.

The file is safetensors. Under the name of a weight it has the mean of x x^T over that layer's inputs x, [d_in, d_in];
where they are known, under ``NAME#mean`` the mean of x, [d_in]. In the metadata, both as JSON: ``same``, weights that
see the inputs of another (later name -> that name), and ``rows``, of how many inputs each was taken.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from dtscodec.checkpoints.checkpoint import Checkpoint, Source, open_checkpoint
from dtscodec.checkpoints.torch_dtypes import Bytes, tensor_bytes, tensor_from_bytes
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
    """

    moment: Tensor
    mean: Tensor | None = None
    rows: int = 0

    def damped(self, damping: float) -> Tensor:
        """The moment, and on its diagonal a share of its mean diagonal: float64 [d_in, d_in]."""
        size = len(self.moment)
        return self.moment + damping * self.moment.trace() / size * torch.eye(size, dtype=torch.float64)


class Grams:
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
            self._same: dict[str, str] = self._json("same")
            self._rows: dict[str, int] = self._json("rows")
            for name, spec in self._file.specs.items():
                self._check(name, spec)
        except BaseException:
            self._file.close()
            raise

    def _json(self, key: str) -> dict[str, Any]:
        text = self._file.metadata.get(key, "{}")
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise CheckpointError(f"{self._file.location}: expected JSON of an object under {key!r}, got {text[:60]!r}")
        return found

    def _check(self, name: str, spec: TensorSpec) -> None:
        is_mean = name.endswith(MEAN)
        shape = spec.shape
        fits = len(shape) == 1 if is_mean else len(shape) == 2 and shape[0] == shape[1]
        if not fits or spec.dtype not in ("F32", "F64"):
            wanted = "a mean [d_in]" if is_mean else "a Gram matrix [d_in, d_in]"
            raise CheckpointError(f"{self._file.location}: {name!r}: expected {wanted} of F32 or F64, got {spec}")

    def __contains__(self, name: str) -> bool:
        return self._same.get(name, name) in self._file.specs

    def read(self, name: str) -> Gram | None:
        """What is known of the inputs of a weight; None if nothing is.

        Raises
        ------
        CheckpointError
            The file was changed, or holds NaN or infinity there.
        """
        name = self._same.get(name, name)
        if name not in self._file.specs:
            return None
        mean = self._tensor(name + MEAN) if name + MEAN in self._file.specs else None
        return Gram(self._tensor(name), mean, int(self._rows.get(name, 0)))

    def _tensor(self, name: str) -> Tensor:
        tensor = tensor_from_bytes(self._file.read(name), self._file.specs[name]).double()
        if not tensor.isfinite().all():
            raise CheckpointError(f"{self._file.location}: {name!r}: expected finite numbers, got others")
        return tensor

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Grams":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def save_grams(out: Path, grams: Mapping[str, Gram], same: Mapping[str, str], force: bool = False) -> None:
    """Write a file of Gram matrices, in float32; `Grams` is the inverse.

    Parameters
    ----------
    out : Path
        ``*.safetensors``.
    grams : mapping
        By weight.
    same : mapping
        Weights that see the inputs of another: name -> the name in `grams`.
    force : bool
        Replace what exists.

    Raises
    ------
    OutputError
        It exists, or cannot be written.
    """
    tensors = {name: gram.moment for name, gram in grams.items()}
    tensors |= {name + MEAN: gram.mean for name, gram in grams.items() if gram.mean is not None}
    specs = {name: TensorSpec("F32", tuple(tensor.shape)) for name, tensor in sorted(tensors.items())}
    metadata = {
        "same": json.dumps(dict(sorted(same.items()))),
        "rows": json.dumps({name: gram.rows for name, gram in sorted(grams.items())}),
    }
    read: Callable[[str], Bytes] = lambda name: tensor_bytes(tensors[name].float())  # noqa: E731
    write_checkpoint(out, specs, read, metadata=metadata, force=force)
