"""Contents of packs and of directories of packs, as values: identity, sizes by kind and tensor, files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtscodec.checkpoints.merged_base import MADE_BY
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.format.claim import Claim
from dtscodec.format.index import FileEntry
from dtscodec.format.summary import BaseRef
from dtscodec.packs.byte_counts import TensorSize, bitmap_bytes, kind_totals, overhead, residual_bytes, tensor_sizes
from dtscodec.packs.directory_index import INDEX_NAME, ListedPack, read_directory_index
from dtscodec.packs.pack import PackSource, as_pack


@dataclass(frozen=True, slots=True)
class PackInfo:
    """The content of a pack, and its bytes by tensor, kind and arena.

    Parameters
    ----------
    path : str
        The file; ``"pack"`` for one in memory.
    pack_id : str
        64 hex digits.
    task, encoder : str, optional
        From the summary.
    claim : Claim, optional
        What the author says about the pack's quality, from the summary.
    base : BaseRef, optional
        Digest of the base and, if it is on the Hub, its repository; None if the pack needs no base.
    size : int
        Bytes on disk.
    parameters, fine_tune_size : int
        Elements and bytes of all tensors of the fine-tune.
    kinds : mapping of str to tuple of int
        For each kind of block that occurs: tensors, their parameters, bytes. A tensor of several kinds counts as
        ``mixed``.
    tensors : tuple of TensorSize
        Names ascending.
    files : tuple of FileEntry
        Auxiliary files.
    bitmaps, overhead : int
        Bytes that belong to no single tensor: of the bitmaps of coded rows and columns; of header, digests, index and
        padding.
    residual : int
        Bytes of the residual layer; 0 for a pack without one.
    content : str, optional
        Digest of what a pack with a residual layer decodes to; None without one.
    arenas : mapping of str to int
        Bytes by arena.
    prefix : tuple of str
        The prefix of names in the fine-tune, and the one that replaces it in the base.
    absent : tuple of str
        Tensors that only the base has.
    metadata : mapping of str to str
        The safetensors metadata of the fine-tune.
    stem : str
        Name of the weight files of a restored directory, without the ending.
    folders : tuple of str
        Folders of a restored directory with weights of their own.
    """

    path: str
    pack_id: str
    task: str | None
    encoder: str | None
    claim: Claim | None
    base: BaseRef | None
    size: int
    parameters: int
    fine_tune_size: int
    kinds: Mapping[str, tuple[int, int, int]]
    tensors: tuple[TensorSize, ...]
    files: tuple[FileEntry, ...]
    bitmaps: int
    overhead: int
    residual: int
    content: str | None
    arenas: Mapping[str, int]
    prefix: tuple[str, str]
    absent: tuple[str, ...]
    metadata: Mapping[str, str]
    stem: str
    folders: tuple[str, ...]

    @property
    def without_base(self) -> tuple[str, ...]:
        """Names of tensors that the base lacks and that are coded, not exact."""
        return tuple(tensor.name for tensor in self.tensors if tensor.without_base)


def info(source: PackSource) -> PackInfo:
    """Return the content of a pack. Only its header and index are read.

    Parameters
    ----------
    source : path, bytes or Pack
        The pack.

    Raises
    ------
    DtsError
        The file cannot be opened.
    FormatError
        It is not a valid pack.
    """
    with as_pack(source) as pack:
        tensors = tensor_sizes(pack)
        specs = [entry.spec for entry in pack.index.tensors]
        return PackInfo(
            path=str(pack.path or "pack"),
            pack_id=pack.id,
            task=pack.summary.task,
            encoder=pack.summary.encoder,
            claim=pack.summary.claim,
            base=pack.summary.base,
            size=pack.size,
            parameters=sum(spec.elements for spec in specs),
            fine_tune_size=sum(spec.nbytes for spec in specs),
            kinds=kind_totals(tensors),
            tensors=tuple(tensors),
            files=pack.index.files,
            bitmaps=bitmap_bytes(pack),
            overhead=overhead(pack, tensors),
            residual=residual_bytes(pack),
            content=pack.summary.content,
            arenas=pack.reader.arena_bytes(),
            prefix=pack.index.prefix,
            absent=pack.index.absent,
            metadata=pack.index.metadata,
            stem=pack.index.stem,
            folders=pack.index.folders,
        )


@dataclass(frozen=True, slots=True)
class StoredBase:
    """The base in a directory of packs.

    Parameters
    ----------
    name : str
        Its name in the index: a path in the directory, or a repository of the Hub.
    stored, size : int, optional
        Bytes of its files and of its tensors; None if it is not in the directory.
    made_by : str, optional
        Method and options that it was merged with.
    """

    name: str
    stored: int | None = None
    size: int | None = None
    made_by: str | None = None


@dataclass(frozen=True, slots=True)
class DirectoryInfo:
    """The content of a directory of packs.

    Parameters
    ----------
    path : Path
        The directory.
    base : StoredBase, optional
        None if the index names none.
    packs : mapping of str to ListedPack
        By task, ascending.
    """

    path: Path
    base: StoredBase | None
    packs: Mapping[str, ListedPack]

    @property
    def size(self) -> int:
        """Bytes of all packs."""
        return sum(pack.size for pack in self.packs.values())


def directory_info(directory: str | os.PathLike[str]) -> DirectoryInfo:
    """Return the content of a local directory of packs, without any download.

    Parameters
    ----------
    directory : path
        The directory.

    Raises
    ------
    CheckpointError
        It has no index of packs, or one that is not valid.
    """
    path = Path(directory)
    folder = read_directory_index(path)
    if folder is None:
        raise CheckpointError(f"{path}: expected a directory with {INDEX_NAME}, got one without")
    base = None if folder.base is None else _stored_base(path, folder.base)
    return DirectoryInfo(path, base, dict(sorted(folder.packs.items())))


def _stored_base(directory: Path, name: str) -> StoredBase:
    # Sizes are known of a local base only.
    if name.startswith("hf://") or not (directory / name).exists():
        return StoredBase(name)
    with open_checkpoint(directory / name) as base:
        files = [base.directory / file for file in base.weight_files] if base.directory else []
        stored, size = (sum(file.stat().st_size for file in files), sum(spec.nbytes for spec in base.specs.values()))
        return StoredBase(name, stored, size, base.metadata.get(MADE_BY))
