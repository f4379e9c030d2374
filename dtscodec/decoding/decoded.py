"""A decoded fine-tune: a lazy mapping of tensors, which can be saved as a plain checkpoint."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from dtscodec.checkpoints.auxiliary_file import Carried
from dtscodec.checkpoints.auxiliary_files import restore_files
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.open import weight_paths
from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import dtype_code, tensor_bytes, torch_dtype, torch_form
from dtscodec.checkpoints.write import SHARD_BYTES, is_single_file, write_checkpoint
from dtscodec.decoding.reconstruct import as_tensor, load_tensors, reconstruct
from dtscodec.errors import NAME_BASE, BaseMismatchError, OutputError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.select import backend_for
from dtscodec.packs.pack import Pack, check_size
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.paths import as_path, is_remote


class Decoded(Mapping[str, Tensor]):
    """A decoded fine-tune, as `decode` returns it: each access decodes one tensor. A context manager.

    Parameters
    ----------
    pack : Pack
        The pack.
    base : Base or None
        The base, if one is given or found.
    device, dtype, check, max_tensor_bytes, lossy
        See `dtscodec.decode`.
    """

    def __init__(
        self,
        pack: Pack,
        base: Base | None,
        device: torch.device,
        dtype: torch.dtype | None,
        check: bool,
        max_tensor_bytes: int,
        lossy: bool = False,
    ) -> None:
        self.pack, self.base = pack, base
        self.is_exact: bool = pack.summary.content is not None and not lossy
        """Whether tensors are the fine-tune's, bit for bit."""
        self._device, self._dtype, self._check, self._max_bytes = device, dtype, check, max_tensor_bytes
        self._backend = backend_for(device)
        self._unread = set(pack.index.base_names()) if check else set()
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Tensor:
        """Decode one tensor, on the device passed to `decode`.

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
        """Return dtype and shape of a decoded tensor."""
        spec = self.pack.spec(name)
        if self._dtype is None or spec.dtype not in CODED_DTYPES:
            return spec
        return TensorSpec(dtype_code(self._dtype), spec.shape)

    def read(self, name: str) -> Bytes:
        """Return the bytes of a decoded tensor, of any dtype: uint8 [nbytes]."""
        return tensor_bytes(self._bytes(name))

    def _bytes(self, name: str) -> Tensor:
        entry = self.pack.reader.entry(name)
        if entry.tied_to is not None:
            return self._bytes(entry.tied_to)
        # In both dtypes: a tensor is reconstructed in its own, then converted.
        check_size(name, max(entry.spec.nbytes, self.spec(name).nbytes), self._max_bytes)
        # Check, reconstruct in the fine-tune's dtype, convert.
        self._check_fit(entry)
        data = self._exact(entry) if self.is_exact else self._reconstructed(entry)
        target = self.spec(name).dtype
        if target != entry.spec.dtype:
            data = convert_dtype(data.view(torch_dtype(entry.spec.dtype)), target).view(torch.uint8)
        return data

    def _reconstructed(self, entry: TensorEntry) -> Tensor:
        tensor = load_tensors(self.pack.reader, [entry.name], self._device)[entry.name]
        data = torch.empty(entry.spec.nbytes, dtype=torch.uint8, device=self._device)
        reconstruct(tensor, functools.cache(self.read_base), self._backend, data)
        return data

    def _exact(self, entry: TensorEntry) -> Tensor:
        return as_tensor(self.pack.reader.exact(entry.name, functools.cache(self._read_base_bytes))).to(self._device)

    # Base

    def read_base(self, name: str) -> tuple[TensorSpec, Tensor]:
        """Return spec and checked bytes, uint8 [nbytes], of a base tensor (rule H2).

        Once all base tensors have been read, the digest of the base is checked (rule H3).
        """
        spec, data = self._read_base_bytes(name)
        return spec, as_tensor(data).to(self._device)

    def _read_base_bytes(self, name: str) -> tuple[TensorSpec, Bytes]:
        expected = self.pack.reader.leaves[name] if self._check else None
        base = self._needed_base()
        data = base.read(name, expected)
        # The last base tensor completes the base digest.
        if name in self._unread:
            self._unread.discard(name)
            if not self._unread:
                self.check_base()
        return base.specs[name], data

    def _check_fit(self, entry: TensorEntry) -> None:
        """Raise BaseMismatchError unless the base has the rows that a tensor's blocks use."""
        if not any(block.base for block in entry.blocks):
            return
        base = self._needed_base()
        entry.check_base(base.specs, base.location)

    def _needed_base(self) -> Base:
        if self.base is None:
            raise self.pack.missing_base()
        return self.base

    def check_base_tensors(self) -> None:
        """Check every base tensor that the pack uses, then the base's digest (rules R1, R2, H2 and H3).

        Raises
        ------
        BaseMismatchError
            The pack was made against another base.
        """
        for entry in self.pack.index.tensors:
            self._check_fit(entry)
        for name in self.pack.index.base_names():
            self.read_base(name)
        self.check_base()

    def check_base(self) -> None:
        """Check the digest over all base tensors that the pack uses (rule H3).

        Raises
        ------
        BaseMismatchError
            The pack was made against another base.
        """
        reference = self.pack.summary.base
        if reference is None or not self._check:
            return
        base = self._needed_base()
        found = base.digest(self.pack.index.base_names()).hex()
        if found != reference.digest:
            detail = f"expected the digest {reference.digest}, got {found}"
            raise BaseMismatchError("base-digest", base.location, detail, "7", NAME_BASE)

    # Output

    def save(
        self,
        out: str | Path,
        *,
        shard_bytes: int | None = None,
        files: bool = True,
        force: bool = False,
        replaces_base: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> None:
        """Write the fine-tune as a plain checkpoint, one tensor at a time.

        A pack with a residual layer gives the fine-tune's own safetensors files, byte for byte, unless `shard_bytes`,
        another dtype or another kind of output asks for others.

        Parameters
        ----------
        out : path
            A file if it ends in ``.safetensors``, ``.bin`` or ``.pt``; otherwise a directory in the layout of Hugging
            Face, including the auxiliary files.
        shard_bytes : int, optional
            Largest shard of a directory, in bytes; by default 5 GB, or as the fine-tune's own files are.
        files : bool
            Whether auxiliary files are written.
        force : bool
            Whether an existing output is replaced.
        replaces_base : bool
            Whether the output may be the base itself, which is then replaced when everything has been written.
        progress : callable
            Called with the number of bytes of each tensor that has been written.

        Raises
        ------
        OutputError
            The output exists or cannot be written. No part of it remains.
        FormatError, BaseMismatchError
            As for reading tensors.
        """
        if is_remote(out):
            raise OutputError(f"{out}: expected a local path, since only encode writes to remote storage")
        out = as_path(out)
        inputs = [self.pack.path] if self.pack.path else []
        inputs += weight_paths(out, self.base.checkpoint) if self.base and not replaces_base else ()
        write_checkpoint(
            out,
            {name: self.spec(name) for name in self},
            self.read,
            metadata=self.pack.index.metadata,
            shard_bytes=SHARD_BYTES if shard_bytes is None else shard_bytes,
            originals=self._originals() if shard_bytes is None else {},
            ties={entry.name: to for entry in self.pack.index.tensors if (to := entry.tied_to) is not None},
            files={} if is_single_file(out) or not files else self.files(),
            stem=self.pack.index.stem,
            folders=self.pack.index.folders,
            force=force,
            inputs=inputs,
            progress=progress,
            finish=self.check_base,
        )

    def _originals(self) -> dict[str, bytes]:
        """Return what the fine-tune's weight files hold beside tensors; nothing where it is not known or not right."""
        if not self.is_exact or self._dtype is not None:
            return {}
        layer = self.pack.reader.layer
        return {} if layer is None else layer.weight_files()

    def files(self) -> dict[str, bytes]:
        """Return the contents of the auxiliary files by name.

        Raises
        ------
        BaseMismatchError, CheckpointError, FormatError
            A file of the base is missing, different (rule F4) or cannot be read, or one of the pack is damaged.
        """
        files = self.pack.auxiliary_files()
        if any(not isinstance(file, Carried) for file in files):
            self._needed_base()
        return restore_files(files, self.base.checkpoint.directory if self.base else None)

    def take_ownership(self, stack: ExitStack) -> None:
        """Take ownership of a stack, which is closed with this object."""
        self._stack = stack

    def close(self) -> None:
        """Close the pack and the base unless the caller opened them."""
        self._stack.close()

    def __enter__(self) -> "Decoded":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
