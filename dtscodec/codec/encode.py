"""Checkpoint -> pack file: every tensor of a fine-tune against its base, one at a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dtscodec import __version__
from dtscodec.checkpoints.attachments import Carried, collect_files
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.identity import Base, digest
from dtscodec.checkpoints.names import NameMatch, match_names
from dtscodec.codec.config import EncodeConfig
from dtscodec.codec.delta import StoredTensor
from dtscodec.codec.encode_tensor import EncodedTensor, code_plan, plan_same, plan_tensor, tie_tensor
from dtscodec.codec.inputs import as_base, as_checkpoint, weight_paths
from dtscodec.codec.ties import Ties
from dtscodec.format.atomic import atomic_file
from dtscodec.format.index import base_of
from dtscodec.format.summary import BaseRef, Summary
from dtscodec.format.writer import PackWriter

LEAF_BYTES = 4
"""Bytes of a base tensor's leaf that a pack holds; its whole digest is in the summary (spec section 7)."""

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What an encode did.

    Parameters
    ----------
    path : Path
        The pack.
    pack_id : str
        64 hex digits.
    tensors : int
        Tensors of the fine-tune.
    fine_bytes : int
        Their bytes, as the fine-tune stores them.
    pack_bytes : int
        Size of the pack on disk.
    relative_error : float
        Norm of what coding loses, by the norm of the delta, over all coded tensors; 0 if none is coded.
    seconds : float
        Wall time.
    """

    path: Path
    pack_id: str
    tensors: int
    fine_bytes: int
    pack_bytes: int
    relative_error: float
    seconds: float


def encode(
    base: "Source | Base",
    fine_tune: "Source | Checkpoint",
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    task: str | None = None,
    force: bool = False,
    progress: Progress = lambda size: None,
) -> EncodeReport:
    """Write the pack that turns a base into a fine-tune.

    Parameters
    ----------
    base : path, mapping of tensors, or Base
        The base checkpoint. A `Base` is hashed once for several fine-tunes.
    fine_tune : path, mapping of tensors, or Checkpoint
        The fine-tune.
    out : path
        The pack; its directory must exist.
    config : EncodeConfig, optional
        Settings; by default DTS as published at a rank share of 0.1.
    task : str, optional
        A short name, stored in the pack.
    force : bool
        Replace a file that exists.
    progress : callable
        Told the bytes of each tensor of the fine-tune that is done.

    Raises
    ------
    CheckpointError
        A checkpoint cannot be read.
    BaseMismatchError
        The base is of another architecture.
    EncodeError
        A tensor cannot be coded, or names are ambiguous.
    OutputError
        The pack cannot be written, or exists.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> fine = {"w": torch.outer(torch.linspace(-1, 1, 64), torch.ones(64))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = dtscodec.encode(base, fine, f"{folder}/task.safetensors")
    ...     with dtscodec.open(report.path) as pack:
    ...         pack.keys()
    ('w',)
    """
    start = time.perf_counter()
    config = config or EncodeConfig()
    out = Path(out)
    with as_base(base) as opened, as_checkpoint(fine_tune) as fine:
        inputs = weight_paths(fine, opened.checkpoint)
        with atomic_file(out, force, inputs) as file, PackWriter(folder=out.parent) as writer:
            encoder = _Encoder(opened, fine, config, writer)
            encoder.encode_tensors(progress)
            encoder.attach_files()
            pack_id = encoder.finish(file, task)
        sizes = sum(spec.nbytes for spec in fine.specs.values()), out.stat().st_size
        error = encoder.relative_error
        return EncodeReport(out, pack_id.hex(), len(fine.specs), *sizes, error, time.perf_counter() - start)


class _Encoder:
    """One encode: adds tensor after tensor to a writer and keeps account of base leaves, ties and errors."""

    def __init__(self, base: Base, fine: Checkpoint, config: EncodeConfig, writer: PackWriter) -> None:
        self._base, self._fine, self._config, self._writer = base, fine, config, writer
        self._match: NameMatch = match_names(fine.specs, base.specs, config.renames, fine.aliases)
        self._used: set[str] = set()
        self._ties = Ties(fine, self._match, config)
        self._leaves: dict[str, bytes] = {}
        self._delta_square = self._error_square = 0.0

    def encode_tensors(self, progress: Progress) -> None:
        for name, spec in self._fine.specs.items():
            encoded = self._encode(name)
            self._used |= {base.name for block in encoded.entry.blocks if (base := base_of(block))}
            self._delta_square += encoded.delta_square
            self._error_square += encoded.error_square
            self._writer.add(encoded.entry, encoded.streams)
            progress(spec.nbytes)

    def _encode(self, name: str) -> EncodedTensor:
        spec, counterpart = self._fine.specs[name], self._match.counterpart[name]
        fine = StoredTensor(name, spec, self._fine.read(name))
        base = None
        if counterpart is not None:
            data, self._leaves[counterpart] = self._base.read_with_leaf(counterpart)
            base = StoredTensor(counterpart, self._base.specs[counterpart], data)
        plan = plan_same(fine, base)
        if plan is None:
            original = self._ties.original(fine)
            if original != name:
                return tie_tensor(name, spec, original)
            plan = plan_tensor(fine, base, self._config)
        del fine, base  # Their bytes are not needed any more, and what follows needs memory.
        return code_plan(plan)

    def attach_files(self) -> None:
        """Add the small files of a fine-tune that is a directory."""
        if not (self._config.files and self._fine.is_directory):
            return
        directories = self._fine.directory, self._base.checkpoint.directory
        for file in collect_files(*directories, self._fine.weight_files):
            if isinstance(file, Carried):
                self._writer.carry_file(file.name, file.data)
            else:
                self._writer.name_file(file.name, file.digest)

    def finish(self, file: BinaryIO, task: str | None) -> bytes:
        """Write the pack and return its id."""
        leaves = {name: self._leaves[name] for name in self._used}
        reference = BaseRef(digest(leaves).hex()) if leaves else None
        encoder = f"dtscodec {__version__} {self._config.describe()}"
        summary = Summary(len(self._fine.specs), base=reference, task=task, encoder=encoder)
        return self._writer.write(
            file,
            summary,
            {name: whole[:LEAF_BYTES] for name, whole in leaves.items()},
            prefix=self._match.prefix,
            absent=self._match.absent,
            metadata=self._fine.metadata,
        )

    @property
    def relative_error(self) -> float:
        return (self._error_square / self._delta_square) ** 0.5 if self._delta_square else 0.0
