"""Encoded tensors -> a pack file and the report on it. All calls that write packs end here."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, TracebackType

from dtscodec.checkpoints.auxiliary_file import AuxiliaryFile
from dtscodec.checkpoints.base import Base
from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares
from dtscodec.encoding.notes import Note, ordered
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.format.content_digest import base_digest
from dtscodec.format.index import Index, TensorEntry
from dtscodec.format.summary import BaseRef, Summary
from dtscodec.format.weight_files import DEFAULT_STEM, used_folders
from dtscodec.format.writer import PackWriter
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import new_file
from dtscodec.storage.paths import work_folder

LEAF_BYTES = 4
"""Bytes of a base tensor's leaf that a pack stores; the whole base digest is in the summary (spec section 7)."""


@dataclass(frozen=True, slots=True)
class PackMetadata:
    """Everything that a pack stores except its tensors.

    Parameters
    ----------
    summary : Summary
        Base, task and encoder; `PackWriter` sets the number of tensors.
    prefix : (str, str)
        Prefix of the fine-tune's names and the one that replaces it in the base; see `Index`.
    absent : sequence of str
        Names of base tensors that the fine-tune lacks; see `Index`.
    metadata : mapping of str to str
        Metadata of the fine-tune's file; see `Index`.
    files : sequence of AuxiliaryFile
        Auxiliary files, names ascending.
    stem : str
        Name of the fine-tune's weight files without its ending; see `Index`.
    folders : sequence of str
        The fine-tune's folders with weights of their own; see `Index`.
    notes : sequence of Note
        Notes for the report. They are not part of the pack.
    """

    summary: Summary
    prefix: tuple[str, str] = ("", "")
    absent: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[AuxiliaryFile] = ()
    stem: str = DEFAULT_STEM
    folders: Sequence[str] = ()
    notes: Sequence[Note] = ()

    def index(self, tensors: Sequence[TensorEntry]) -> Index:
        """Return the index of a pack of these tensors. Compresses the auxiliary files to find their stored sizes."""
        files = tuple(file.entry for file in self.files)
        folders = used_folders((entry.name for entry in tensors), self.folders)
        return Index(tuple(tensors), self.prefix, tuple(self.absent), dict(self.metadata), files, self.stem, folders)

    def with_base(self, base: BaseRef | None) -> "PackMetadata":
        """Return the same with another reference to the base."""
        return replace(self, summary=replace(self.summary, base=base))

    def with_notes(self, notes: Iterable[Note]) -> "PackMetadata":
        """Return the same with more notes."""
        return replace(self, notes=(*self.notes, *notes))


def reference_to(base: Base, leaves: Mapping[str, bytes]) -> tuple[BaseRef | None, dict[str, bytes]]:
    """Return a pack's reference to its base for the summary, and the leaves as the pack stores them.

    Parameters
    ----------
    base : Base
        The base.
    leaves : mapping of str to bytes
        Leaves of the base tensors that the pack uses. A pack that uses none has no base.
    """
    # The base digest covers whole leaves, of which the pack stores the first bytes.
    reference = base.reference(base_digest(leaves)) if leaves else None
    return reference, {name: leaf[:LEAF_BYTES] for name, leaf in leaves.items()}


class PackAssembler:
    """Collects encoded tensors, and writes them as a pack. A context manager; the pack appears if no error ends it.

    Parameters
    ----------
    out : Path
        The pack, local or remote.
    numbers : {"F32", "BF16"}
        Dtype of norms, levels and scales.
    force : bool
        Replace a file that exists.
    inputs : iterable of Path
        Files that must not be replaced, because they are still read.
    start : float, optional
        Start of the time in the report, in seconds of `time.perf_counter`; by default now.
    progress : callable
        Called with the bytes of each tensor that is added.

    Raises
    ------
    OutputError
        The output exists, or cannot be written.
    """

    def __init__(
        self,
        out: Path,
        numbers: str = "F32",
        *,
        force: bool = False,
        inputs: Iterable[Path] = (),
        start: float | None = None,
        progress: ProgressCallback = no_progress,
    ) -> None:
        self._out, self._numbers, self._force, self._inputs = out, numbers, force, inputs
        self._start = time.perf_counter() if start is None else start
        self._progress = progress
        self._stack = ExitStack()
        self._squares = Squares()
        self._tensors = self._fine_bytes = 0
        self._used: set[str] = set()

    def __enter__(self) -> "PackAssembler":
        with ExitStack() as stack:
            # The stack is handed over when both are open: if the second fails, the first is closed here.
            self._file = stack.enter_context(new_file(self._out, self._force, self._inputs))
            self._writer = stack.enter_context(PackWriter(self._numbers, work_folder(self._out)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    @property
    def used_bases(self) -> set[str]:
        """Names of the base tensors that the tensors added so far use."""
        return set(self._used)

    def add(self, tensor: EncodedTensor) -> None:
        """Add a tensor. Names must ascend."""
        self._writer.add(tensor.entry, tensor.streams)
        self._used |= {block.base.name for block in tensor.entry.blocks if block.base is not None}
        self._squares += tensor.squares
        self._tensors += 1
        self._fine_bytes += tensor.entry.spec.nbytes
        self._progress(tensor.entry.spec.nbytes)

    def finish(
        self, metadata: PackMetadata, leaves: Mapping[str, bytes] = MappingProxyType({}), exact_bytes: int = 0
    ) -> EncodeReport:
        """Write the pack, and return its report.

        Parameters
        ----------
        metadata : PackMetadata
            Everything except the tensors.
        leaves : mapping of str to bytes
            Leaves of the base tensors that are used, as the pack stores them; see `reference_to`.
        exact_bytes : int
            For the report: see `EncodeReport`.
        """
        for file in metadata.files:
            file.add_to(self._writer)
        pack_id = self._writer.write(
            self._file,
            metadata.summary,
            leaves,
            prefix=metadata.prefix,
            absent=metadata.absent,
            metadata=metadata.metadata,
            stem=metadata.stem,
            folders=metadata.folders,
        )
        return EncodeReport(
            path=self._out,
            pack_id=pack_id.hex(),
            tensors=self._tensors,
            fine_bytes=self._fine_bytes,
            pack_bytes=self._file.seek(0, os.SEEK_END),
            seconds=time.perf_counter() - self._start,
            relative_error=self._squares.relative_error,
            left_out=self._squares.left_out_share,
            exact_bytes=exact_bytes,
            notes=ordered(metadata.notes),
        )
