"""Pack + base -> weights: a lazy mapping of tensors (spec section 8)."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import torch
from torch import Tensor

from dtscodec.checkpoints.attachments import Attachment, Carried, Named, restore_files
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.checkpoints.torch_dtypes import Bytes, dtype_code, tensor_bytes, torch_dtype, torch_form
from dtscodec.checkpoints.write import SHARD_BYTES, is_single_file, write_checkpoint
from dtscodec.codec.delta import convert
from dtscodec.codec.folder import find_base
from dtscodec.codec.inputs import as_base, weight_paths
from dtscodec.codec.pack import Pack
from dtscodec.codec.reconstruct import reconstruct
from dtscodec.errors import BackendError, BaseMismatchError, FormatError
from dtscodec.format.blocks import Tie
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import CarriedFile

MAX_TENSOR_BYTES = 2**36
"""Default of the largest tensor that is decoded (spec section 8, rule L2)."""

PackSource: TypeAlias = "str | os.PathLike[str] | bytes | Pack"


def decode(
    pack: PackSource,
    base: "Source | Base | None" = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    check: bool = True,
    max_tensor_bytes: int = MAX_TENSOR_BYTES,
) -> "Decoded":
    """Open the fine-tune that a pack stands for.

    Parameters
    ----------
    pack : path, bytes or Pack
    base : path, mapping of tensors, or Base
        The base. Without it the index beside the pack is asked (see `dtscodec.codec.folder`).
    device : str or torch.device
        Where tensors are rebuilt, and stay.
    dtype : torch.dtype, optional
        For tensors of F16, BF16, F32 and F64; by default each has the fine-tune's own.
    check : bool
        Whether base tensors are checked against the pack. Without it a wrong base gives wrong weights.
    max_tensor_bytes : int
        Largest tensor that is decoded; a hostile pack may claim any size.

    Returns
    -------
    Decoded
        A lazy mapping; nothing but names is read yet. Close it, or use it as a context manager.

    Raises
    ------
    FormatError
        The pack is not sound.
    BaseMismatchError
        No base is at hand.
    CheckpointError
        The base cannot be read.
    BackendError
        There is no such device.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> fine = {"w": torch.outer(torch.ones(64), torch.ones(64))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = dtscodec.encode(base, fine, f"{folder}/task.safetensors").path
    ...     with dtscodec.decode(path, base) as state:
    ...         state["w"].shape
    torch.Size([64, 64])
    """
    with ExitStack() as stack:
        opened = pack if isinstance(pack, Pack) else stack.enter_context(Pack(pack))
        needs_base = opened.summary.base is not None
        found = base if base is not None or not needs_base else find_base(opened)
        opened_base = stack.enter_context(as_base(found)) if found is not None and needs_base else None
        decoded = Decoded(opened, opened_base, _device(device), dtype, check, max_tensor_bytes)
        decoded.keep_open(stack.pop_all())
        return decoded


class Decoded(Mapping[str, Tensor]):
    """A fine-tune, made by `decode`: each access decodes one tensor. A context manager."""

    def __init__(
        self,
        pack: Pack,
        base: Base | None,
        device: torch.device,
        dtype: torch.dtype | None,
        check: bool,
        max_tensor_bytes: int,
    ) -> None:
        self.pack, self.base = pack, base
        self._device, self._dtype, self._check, self._max_bytes = device, dtype, check, max_tensor_bytes
        self._unread = set(pack.index.base_names()) if check else set()
        self._stack = ExitStack()

    # Mapping

    def __getitem__(self, name: str) -> Tensor:
        """Decode one tensor, on the device asked for.

        Raises
        ------
        KeyError
            No tensor of that name.
        FormatError
            The pack is damaged there, or the tensor is larger than allowed.
        BaseMismatchError
            The base tensor is another than the pack was made against.
        CheckpointError
            torch has no such dtype; `read` gives the bytes.
        """
        dtype, shape = torch_form(self.spec(name))
        return self._bytes(name).view(dtype).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.pack.keys())

    def __len__(self) -> int:
        return len(self.pack.index.tensors)

    def spec(self, name: str) -> TensorSpec:
        """Dtype and shape of a tensor as it is decoded."""
        spec = self.pack.spec(name)
        if self._dtype is None or spec.dtype not in CODED_DTYPES:
            return spec
        return TensorSpec(dtype_code(self._dtype), spec.shape)

    def read(self, name: str) -> Bytes:
        """The bytes of a decoded tensor, of whatever dtype: uint8 [nbytes]."""
        return tensor_bytes(self._bytes(name))

    def _bytes(self, name: str) -> Tensor:
        entry = self.pack.reader.entry(name)
        if isinstance(entry.blocks[0], Tie):
            return self._bytes(entry.blocks[0].to)
        if max(entry.spec.nbytes, self.spec(name).nbytes) > self._max_bytes:
            detail = f"expected at most {self._max_bytes} bytes, got {entry.spec}; allow it with max_tensor_bytes"
            raise FormatError("limit", name, detail, "8")
        data = reconstruct(entry, self.pack.reader.blocks(name), self._read_base, self._device)
        target = self.spec(name).dtype
        if target != entry.spec.dtype:
            data = convert(data.view(torch_dtype(entry.spec.dtype)), target).view(torch.uint8)
        return data

    # Base

    def _read_base(self, name: str) -> tuple[TensorSpec, Bytes]:
        """Read a base tensor and check it (rule H2); the last one read completes the whole base's check (H3)."""
        if self.base is None:
            raise no_base(str(self.pack.path or "pack"))
        expected = self.pack.reader.leaves[name] if self._check else None
        data = self.base.read(name, expected)
        if name in self._unread:
            self._unread.discard(name)
            if not self._unread:
                self.check_base()
        return self.base.specs[name], data

    def check_base_tensors(self) -> None:
        """Check every base tensor that the pack uses, then the whole (rules H2 and H3).

        Raises
        ------
        BaseMismatchError
            The base is another.
        """
        for name in self.pack.index.base_names():
            self._read_base(name)
        self.check_base()

    def check_base(self) -> None:
        """Check the digest over all base tensors that the pack uses (rule H3).

        Raises
        ------
        BaseMismatchError
            The base is another.
        """
        reference = self.pack.summary.base
        if reference is None or not self._check:
            return
        if self.base is None:
            raise no_base(str(self.pack.path or "pack"))
        found = self.base.digest(self.pack.index.base_names()).hex()
        if found != reference.digest:
            detail = f"expected the digest {reference.digest}, got {found}; name the base the pack was made against"
            raise BaseMismatchError("base-digest", self.base.location, detail, "7")

    # Output

    def save(
        self,
        out: str | Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        files: bool = True,
        force: bool = False,
        progress: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Write the fine-tune as a plain checkpoint, one tensor at a time.

        Parameters
        ----------
        out : path
            ``*.safetensors``, ``*.bin``, ``*.pt``: one file. Anything else: a directory in the layout of Hugging Face,
            with the files that travel with the pack.
        shard_bytes : int
            Largest file of tensors in a directory.
        files : bool
            Whether configuration and tokenizer files are written, too.
        force : bool
            Replace what exists.
        progress : callable
            Told the bytes of each tensor that is written.

        Raises
        ------
        OutputError
            The output cannot be written, or exists. Nothing is left of it.
        FormatError, BaseMismatchError
            As for reading tensors.
        """
        out = Path(out)
        inputs = [self.pack.path] if self.pack.path else []
        inputs += weight_paths(self.base.checkpoint) if self.base else ()
        write_checkpoint(
            out,
            {name: self.spec(name) for name in self},
            self.read,
            metadata=self.pack.index.metadata,
            shard_bytes=shard_bytes,
            ties={entry.name: tie.to for entry in self.pack.index.tensors if isinstance(tie := entry.blocks[0], Tie)},
            files={} if is_single_file(out) or not files else self.files(),
            force=force,
            inputs=inputs,
            progress=progress,
            finish=self.check_base,
        )

    def files(self) -> dict[str, bytes]:
        """The files that travel with the fine-tune: names and contents.

        Raises
        ------
        CheckpointError
            A file that should lie beside the base is not there, or is another.
        """
        attached: list[Attachment] = []
        for entry in self.pack.index.files:
            if isinstance(entry, CarriedFile):
                attached.append(Carried(entry.name, self.pack.reader.file(entry)))
            else:
                attached.append(Named(entry.name, entry.digest))
        return restore_files(attached, self.base.checkpoint.directory if self.base else None)

    # Closing

    def keep_open(self, stack: ExitStack) -> None:
        """Take over what is to be closed with this."""
        self._stack = stack

    def close(self) -> None:
        """Close the pack and the base, as far as they were opened for this."""
        self._stack.close()

    def __enter__(self) -> "Decoded":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def no_base(where: str) -> BaseMismatchError:
    """The error for a pack whose base is nowhere to be found."""
    detail = "expected the base that it was made against, got none; name it with --base"
    return BaseMismatchError("base-tensor", where, detail, "4.4")


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise BackendError(f"device '{device}': expected one that torch can use here, got '{reason}'") from error
    if found.type == "meta":
        raise BackendError(f"device '{device}': expected one that holds data, got none that does")
    return found
