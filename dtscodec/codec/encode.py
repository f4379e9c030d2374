"""Checkpoint -> pack file: every tensor of a fine-tune against its base, one at a time."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from dtscodec import __version__
from dtscodec.checkpoints.attachments import Attachment, Carried, collect_files
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.identity import Base, digest
from dtscodec.checkpoints.names import NameMatch, match_names
from dtscodec.codec.allocate import Choices
from dtscodec.codec.best import planner_of
from dtscodec.codec.code_tensor import Planner, Squares, code_tensor
from dtscodec.codec.config import EncodeConfig
from dtscodec.codec.delta import StoredTensor
from dtscodec.codec.factorize import one_thread
from dtscodec.codec.inputs import as_base, as_checkpoint, weight_paths
from dtscodec.codec.least import smallest_for
from dtscodec.codec.options import NUMBERS
from dtscodec.codec.paper import plan_paper
from dtscodec.codec.pieces import Cut, cut_same, cut_tensor, cut_tie
from dtscodec.codec.survey import LEAF_BYTES, Frame, Survey
from dtscodec.codec.ties import Ties
from dtscodec.format.atomic import atomic_file
from dtscodec.format.index import FileEntry, NamedFile, base_of
from dtscodec.format.summary import BaseRef, Summary
from dtscodec.format.writer import PackWriter, carried_entry

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
        Norm of what coding loses, by the norm of the delta, over all tensors that have a counterpart in the base and
        are not kept exactly by a pattern; both without what rounding of the fine-tune to its dtype explains. 0 if
        nothing changed.
    left_out : float
        Share of the delta's squared norm in tensors that are left as the base has them though they changed: what the
        budget had better uses for.
    seconds : float
        Wall time.
    """

    path: Path
    pack_id: str
    tensors: int
    fine_bytes: int
    pack_bytes: int
    relative_error: float
    left_out: float
    seconds: float


def reads(config: EncodeConfig) -> int:
    """How often an encode reads every tensor, and tells `progress` of it: `best` looks at all before it chooses."""
    return 1 if config.preset == "paper" else 2


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
        Settings; by default the preset `best` at 0.08 bits a parameter.
    task : str, optional
        A short name, stored in the pack.
    force : bool
        Replace a file that exists.
    progress : callable
        Told the bytes of each tensor that is looked at; `reads` tells how often that is.

    Raises
    ------
    CheckpointError
        A checkpoint cannot be read.
    BaseMismatchError
        The base is of another architecture.
    EncodeError
        A tensor cannot be coded, names are ambiguous, or the size that is asked for is too small.
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
    numbers = NUMBERS if config.preset == "best" else "F32"
    with as_base(base) as opened, as_checkpoint(fine_tune) as fine:
        inputs = weight_paths(fine, opened.checkpoint)
        with atomic_file(out, force, inputs) as file, PackWriter(numbers, out.parent) as writer, one_thread():
            encoder = _Encoder(opened, fine, config, task)
            planner = encoder.choose(progress)
            pack_id, squares = encoder.write(planner, file, writer, progress)
        sizes = sum(spec.nbytes for spec in fine.specs.values()), out.stat().st_size
        return EncodeReport(
            out,
            pack_id.hex(),
            len(fine.specs),
            *sizes,
            squares.relative_error,
            squares.left_out_share,
            time.perf_counter() - start,
        )


class _Encoder:
    """One encode: goes over the tensors, once or several times, and keeps account of base leaves and ties."""

    def __init__(self, base: Base, fine: Checkpoint, config: EncodeConfig, task: str | None) -> None:
        self._base, self._fine, self._config = base, fine, config
        self._match: NameMatch = match_names(fine.specs, base.specs, config.renames, fine.aliases)
        self._ties = Ties(fine, self._match, config)
        self._leaves: dict[str, bytes] = {}
        self._files = self._collect_files()
        self._summary = Summary(task=task, encoder=f"dtscodec {__version__} {config.describe()}", tensors=0)

    def choose(self, progress: Progress) -> Planner:
        """Decide how each piece of each tensor is stored."""
        config = self._config
        if config.preset == "paper":
            return lambda cut: plan_paper(cut, config)
        survey = Survey(config, tuple(self._fine.specs.values()))
        for cut in self._cuts(progress):
            survey.add(cut)
        if config.rank is not None:
            choices = survey.choose_any()
        elif config.error is not None:
            choices = smallest_for(config.error, survey, lambda choices: self._error_of(choices))
        else:
            frame = self._frame()
            choices = survey.choose(frame, survey.budget(frame))
        return planner_of(choices, config)

    def _error_of(self, choices: Choices) -> float:
        """Relative error that choices lead to, by coding all tensors."""
        total = Squares()
        planner = planner_of(choices, self._config)
        for cut in self._cuts(lambda size: None):
            total += code_tensor(cut, planner).squares
        return total.relative_error

    def write(self, planner: Planner, file: BinaryIO, writer: PackWriter, progress: Progress) -> tuple[bytes, Squares]:
        """Code all tensors and write the pack; its id, and what coding loses."""
        total = Squares()
        used: set[str] = set()
        for cut in self._cuts(progress):
            encoded = code_tensor(cut, planner)
            used |= {base.name for block in encoded.entry.blocks if (base := base_of(block))}
            total += encoded.squares
            writer.add(encoded.entry, encoded.streams)
        for attached in self._files:
            if isinstance(attached, Carried):
                writer.carry_file(attached.name, attached.data)
            else:
                writer.name_file(attached.name, attached.digest)
        leaves = {name: self._leaves[name] for name in used}
        return self._finish(file, writer, leaves), total

    def _finish(self, file: BinaryIO, writer: PackWriter, leaves: dict[str, bytes]) -> bytes:
        summary = replace(self._summary, base=BaseRef(digest(leaves).hex()) if leaves else None)
        cut_leaves = {name: whole[:LEAF_BYTES] for name, whole in leaves.items()}
        match, metadata = self._match, self._fine.metadata
        return writer.write(file, summary, cut_leaves, prefix=match.prefix, absent=match.absent, metadata=metadata)

    def _frame(self) -> Frame:
        """What the size of the pack depends on beside the choices. Any digest is as long as the right one."""
        needs_base = any(other is not None for other in self._match.counterpart.values())
        summary = replace(self._summary, base=BaseRef(bytes(32).hex()) if needs_base else None)
        files = [_entry(file) for file in self._files]
        return Frame(summary, self._match.prefix, self._match.absent, self._fine.metadata, files)

    def _cuts(self, progress: Progress) -> Iterator[Cut]:
        """Every tensor of the fine-tune against its base, names ascending."""
        for name, spec in self._fine.specs.items():
            yield self._cut(name)
            progress(spec.nbytes)

    def _cut(self, name: str) -> Cut:
        spec, counterpart = self._fine.specs[name], self._match.counterpart[name]
        fine = StoredTensor(name, spec, self._fine.read(name))
        base = None
        if counterpart is not None:
            data, self._leaves[counterpart] = self._base.read_with_leaf(counterpart)
            base = StoredTensor(counterpart, self._base.specs[counterpart], data)
        same = cut_same(fine, base)
        if same is not None:
            return same
        original = self._ties.original(fine)
        return cut_tie(name, spec, original) if original != name else cut_tensor(fine, base, self._config)

    def _collect_files(self) -> list[Attachment]:
        """The small files of a fine-tune that is a directory."""
        if not (self._config.files and self._fine.is_directory):
            return []
        directories = self._fine.directory, self._base.checkpoint.directory
        return list(collect_files(*directories, self._fine.weight_files))


def _entry(file: Attachment) -> FileEntry:
    return carried_entry(file.name, file.data) if isinstance(file, Carried) else NamedFile(file.name, file.digest)
