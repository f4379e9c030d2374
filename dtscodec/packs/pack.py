"""Public access to a pack: names, specs, deltas and decoded tensors, one at a time. Imports no torch."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.checkpoints.auxiliary_file import AuxiliaryFile, read_auxiliary_file
from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.containers.exact_pack import MAX_TENSOR_BYTES as MAX_TENSOR_BYTES
from dtscodec.checkpoints.foreign_file import check_not_foreign
from dtscodec.errors import BaseMismatchError, FormatError, PackNotFoundError, Remedy
from dtscodec.files.range_reader import MemoryFile
from dtscodec.format.blocks import CodedContent, CodedDelta
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import Index, TensorEntry
from dtscodec.format.reader import PackReader
from dtscodec.format.residual.prediction import ReadBytes
from dtscodec.format.summary import Summary
from dtscodec.packs.directory_index import locate_pack
from dtscodec.packs.numpy_decoder import numpy_form, numpy_tensor
from dtscodec.storage.open_file import Access, open_file


def check_size(name: str, size: int, allowed: int) -> None:
    """Raise FormatError if a tensor is larger than the caller allows (rule L2), before memory is allocated for it.

    Parameters
    ----------
    name : str
        The tensor, for messages.
    size, allowed : int
        Its size, and the largest that is allowed, in bytes.
    """
    if size > allowed:
        raise FormatError("limit", name, f"expected at most {allowed} bytes, got {size}; see max_tensor_bytes", "8")


class Pack:
    """An open pack. A context manager; safe to read from many threads.

    Parameters
    ----------
    source : path or bytes
        A local file, one in remote storage (`s3://...`), or one on the Hub: `hf://user/repo[@revision]/path`, where a
        task of the repository's index may replace the path.
    whole : bool
        Whether all of it will be read. A file on the Hub is then downloaded through the client's cache.
    front : bool
        Whether all but the residual layer will be read. Of a remote file that part is then transferred at once.

    Raises
    ------
    DtsError
        The file cannot be opened.
    FormatError
        It is not a valid pack.
    """

    def __init__(self, source: "str | os.PathLike[str] | bytes", *, whole: bool = False, front: bool = False) -> None:
        if isinstance(source, bytes):
            self.path: Path | None = None
            self.reader = PackReader(MemoryFile(source), "pack")
            return
        self.path = locate_pack(source)
        try:
            file = open_file(self.path, Access(whole=whole, front=front), is_pack=True)
        except PackNotFoundError:
            raise
        except OSError as error:
            raise PackNotFoundError(f"{self.path}: expected a pack, got '{error.strerror}'") from error
        try:
            self.reader = PackReader(file, str(self.path))
            if front:
                self.reader.keep_front()
        except BaseException:
            file.close()
            check_not_foreign(self.path)
            raise

    @property
    def summary(self) -> Summary:
        """The pack's summary: base, task, encoder."""
        return self.reader.summary

    @property
    def index(self) -> Index:
        """The pack's index: tensors, their blocks, auxiliary files."""
        return self.reader.index

    @property
    def id(self) -> str:
        """The pack id: SHA-256 over the whole pack, 64 hex digits (spec section 3.4)."""
        return self.reader.id

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self.reader.size

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fine-tune's tensors, ascending."""
        return tuple(entry.name for entry in self.index.tensors)

    def spec(self, name: str) -> TensorSpec:
        """Return dtype and shape of a tensor; KeyError if there is none of that name."""
        return self.reader.entry(name).spec

    def auxiliary_files(self) -> list[AuxiliaryFile]:
        """Return the auxiliary files that travel with the pack, names ascending."""
        return [read_auxiliary_file(self.reader, entry) for entry in self.index.files]

    def delta(self, name: str, max_tensor_bytes: int = MAX_TENSOR_BYTES) -> NDArray[np.float32]:
        """Return the decoded delta of one tensor. Only the byte ranges of that tensor are read.

        Parameters
        ----------
        name : str
            Name of the tensor.
        max_tensor_bytes : int
            Largest result, in bytes; a hostile pack may claim any size.

        Returns
        -------
        float32, of the tensor's shape
            Zero where the tensor equals the base.

        Raises
        ------
        KeyError
            No tensor of that name.
        ValueError
            The tensor, or a part of it, is stored exactly rather than as a delta: use `dtscodec.decode`.
        FormatError
            The pack is damaged there, or the result larger than allowed.
        """
        entry = self.reader.entry(name)
        check_size(name, 4 * entry.spec.elements, max_tensor_bytes)
        whole = np.zeros(entry.spec.matrix(entry.split), np.float32)
        for row, block, content in self.reader.contents(name):
            if isinstance(content, CodedContent):
                whole[row : row + block.height] = content.delta().place(block.height, entry.columns)
            elif block.base is None:
                raise ValueError(f"{name}: expected a delta, got a tensor that is stored exactly; decode it instead")
        return whole.reshape(entry.spec.shape)

    def factors(self, name: str, max_tensor_bytes: int = MAX_TENSOR_BYTES) -> "list[tuple[int, CodedDelta]]":
        """Return the coded blocks of one tensor, dequantized but not multiplied. Only their byte ranges are read.

        Parameters
        ----------
        name : str
            Name of the tensor.
        max_tensor_bytes : int
            Largest tensor, in bytes of float32; a hostile pack may claim any size.

        Returns
        -------
        list of (first row, CodedDelta)
            The delta of a block's coded rows and columns is `left @ right`, or `left` alone if `right` is None.

        Raises
        ------
        KeyError
            No tensor of that name.
        FormatError
            The pack is damaged there, or the tensor larger than allowed.
        """
        entry = self.reader.entry(name)
        check_size(name, 4 * entry.spec.elements, max_tensor_bytes)
        contents = self.reader.contents(name)
        return [(row, content.delta()) for row, _, content in contents if isinstance(content, CodedContent)]

    def tensor(
        self,
        name: str,
        base: "Source | Base | None" = None,
        max_tensor_bytes: int = MAX_TENSOR_BYTES,
        *,
        lossy: bool = False,
    ) -> NDArray[np.generic]:
        """Return one tensor of the fine-tune as a numpy array, reconstructed without torch.

        Parameters
        ----------
        name : str
            Name of the tensor.
        base : path, mapping of numpy arrays, or Base
            The base. Tensors that are read are checked against the pack. Not needed for a tensor that uses no base.
        max_tensor_bytes : int
            Largest tensor, in bytes; a hostile pack may claim any size.
        lossy : bool
            Whether the residual layer is left out, and not read either.

        Returns
        -------
        array
            In the tensor's dtype; BF16, which numpy does not have, as float32.

        Raises
        ------
        KeyError
            No tensor of that name.
        ValueError
            numpy does not have the dtype: use `dtscodec.decode`.
        BaseMismatchError
            The base is missing, or another than the pack was made against.
        FormatError, CheckpointError
            The pack or the base is damaged.
        """
        entry = self.reader.entry(name)
        if entry.tied_to is not None:
            entry = self.reader.entry(entry.tied_to)
        check_size(name, entry.spec.nbytes, max_tensor_bytes)
        if base is None:
            return self._tensor(entry, self._no_base, lossy)
        with as_base(base, dequantize=self.summary.dequantized_base) as opened:
            entry.check_base(opened.specs, opened.location)
            # Each base tensor is read and checked once, however many blocks use it.
            read = cache(lambda name: (opened.specs[name], opened.read(name, self.reader.leaves[name])))
            return self._tensor(entry, read, lossy)

    def _tensor(self, entry: TensorEntry, read_base: ReadBytes, lossy: bool) -> NDArray[np.generic]:
        if lossy or self.summary.content is None:
            return numpy_tensor(entry, self.reader.contents(entry.name), read_base)
        return numpy_form(self.reader.exact(entry.name, read_base), entry)

    def _no_base(self, name: str) -> NoReturn:
        raise self.missing_base()

    def check_front(self) -> None:
        """Check that the front, without a residual layer, stands for the fine-tune and not for the base.

        Raises
        ------
        FormatError
            The pack was encoded without codes, so that all its changes are in the residual layer.
        """
        if self.summary.content is None or any(
            block.is_coded for entry in self.index.tensors for block in entry.blocks
        ):
            return
        layer = self.reader.layer
        if layer is not None and any(tensor.chunks for tensor in layer.index.tensors):
            detail = "expected codes that approximate the fine-tune, got an exact pack without any"
            remedy = Remedy("use it exactly, or encode it with a size")
            raise FormatError("residual", str(self.path or "pack"), detail, "15", remedy)

    def missing_base(self) -> BaseMismatchError:
        """Return the error that the pack needs its base, and none is given."""
        where, detail = str(self.path or "pack"), "expected the base that it was made against, got none"
        return BaseMismatchError("base-tensor", where, detail, "4.4", Remedy("name it with {base}"))

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    def __enter__(self) -> "Pack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pack {self.path or 'in memory'}: {len(self.index.tensors)} tensors, {self.size} bytes>"


PackSource: TypeAlias = "str | os.PathLike[str] | bytes | Pack"


def as_pack(source: PackSource, whole: bool = False, front: bool = False) -> AbstractContextManager[Pack]:
    """Open a pack as a context. A `Pack` is returned itself, and not closed at exit. For the others see `Pack`."""
    return nullcontext(source) if isinstance(source, Pack) else Pack(source, whole=whole, front=front)
