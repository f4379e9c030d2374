"""The base of a running model: packs are checked against it, and copies are saved of what packs will overwrite."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes
from dtscodec.decoding.reconstruct import as_tensor
from dtscodec.errors import BaseMismatchError, ModelMismatchError, Remedy
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.packs.pack import Pack
from dtscodec.runtime.model.slots import Slot, bytes_of
from dtscodec.storage.open_file import WHOLE

OTHER_BASE = Remedy("name the base that the pack was made against")
OTHER_WEIGHTS = Remedy("load the base's weights in their own dtype, or give the base as {base}")


class RunningBase:
    """Base tensors of a model, each by its name in the pack and by the slot where the model holds it.

    Without a source the model itself is the base. Then a tensor's content is that of the model's memory when it is
    first read, so `save_copies` must be called before the memory is overwritten.

    Parameters
    ----------
    source : Base, optional
        The checkpoint to read base tensors from; by default the model's own memory.
    """

    def __init__(self, source: Base | None = None) -> None:
        self.source = source
        self._leaves: dict[tuple[Slot, int], bytes] = {}
        self._compared: set[tuple[Slot, int]] = set()
        self._copies: dict[Slot | str, tuple[TensorSpec, Tensor]] = {}

    @property
    def location(self) -> str:
        """Name of the base, for messages."""
        return self.source.location if self.source else "the model"

    def dequantize_for(self, pack: Pack) -> None:
        """Dequantize the source if a pack was made against a quantized base that was read so (spec section 7.1)."""
        if self.source is not None:
            self.source = self.source.dequantize(pack.summary.dequantized_base)

    def check(self, pack: Pack, bases: Mapping[str, Slot | None]) -> None:
        """Check every base tensor that a pack uses, and the base digest (rules H2 and H3).

        Parameters
        ----------
        pack : Pack
            The pack.
        bases : mapping of str to Slot or None
            Names of the base tensors that it uses, and the slot where the model has each, if it does.

        Raises
        ------
        BaseMismatchError
            The base is not the one that the pack was made against.
        ModelMismatchError
            The model does not hold the values of `source`.
        """
        remedy = OTHER_BASE if self.source else OTHER_WEIGHTS
        # Compare each leaf (H2), since that names the tensor that differs, then the digest of all (H3).
        leaves = {name: self._leaf(name, slot) for name, slot in bases.items()}
        for name, found in leaves.items():
            expected = pack.reader.leaves[name]
            if not found.startswith(expected):
                detail = f"expected a leaf of {expected.hex()}, got {found[: len(expected)].hex()}"
                raise BaseMismatchError("base-leaf", f"{self.location}: {name!r}", detail, "7", remedy)
        reference = pack.summary.base
        if reference is not None and (whole := base_digest(leaves)).hex() != reference.digest:
            detail = f"expected the digest {reference.digest}, got {whole.hex()}"
            raise BaseMismatchError("base-digest", self.location, detail, "7", remedy)
        # The source is the pack's base; check that the model holds it.
        for name, slot in bases.items():
            if slot is not None:
                self._check_model(name, slot)

    def check_held(self, expected: Mapping[Slot | None, tuple[str, bytes]]) -> None:
        """Check that the model still holds base tensors. Those that were not written since are not read again.

        Parameters
        ----------
        expected : mapping of Slot or None to (str, bytes)
            The name and the first bytes of the leaf of the base tensor in each slot.

        Raises
        ------
        ModelMismatchError
            It does not.
        """
        for slot, (name, first) in expected.items():
            if slot is None:
                continue
            _ = slot.tensor  # Raises an error if it was replaced.
            self._check_model(name, slot)
            if self.source is None and not self._leaf(name, slot).startswith(first):
                problem = f"{slot.name}: expected the base's values as before, got others"
                raise ModelMismatchError(problem, Remedy("write the base's values back"))

    def save_copies(self, bases: Mapping[str, Slot | None], names: Iterable[str], device: torch.device) -> None:
        """Copy base tensors into memory, from where `read` takes them from now on.

        Parameters
        ----------
        bases : mapping of str to Slot or None
            As for `check`.
        names : iterable of str
            The base tensors to copy.
        device : torch.device
            Device of the copies.
        """
        for name in names:
            # By slot, so that base tensors that are tied in the model are copied once.
            key = bases[name] or name
            if key not in self._copies:
                spec, data = self._read_source(name, bases[name], device)
                # Bytes from a source are a copy already; those from the model are a view of memory to be overwritten.
                self._copies[key] = spec, data if self.source else data.clone()

    def saved_original(self, slot: Slot) -> Tensor | None:
        """Return the bytes that the model held in a slot at first, uint8 [nbytes], if `save_copies` copied them."""
        return self._copies[slot][1] if self.source is None and slot in self._copies else None

    def read(self, name: str, slot: Slot | None, device: torch.device) -> tuple[TensorSpec, Tensor]:
        """Return a base tensor: its saved copy if there is one, else from the source or the model's memory.

        Parameters
        ----------
        name : str
            The base tensor, as the pack names it.
        slot : Slot or None
            Where the model has it, if it does.
        device : torch.device
            Device of the result.

        Returns
        -------
        spec : TensorSpec
            Its dtype and shape.
        data : uint8 [nbytes]
            Its bytes in C order. They may be the model's own memory: read only.
        """
        saved = self._copies.get(slot or name)
        if saved is None:
            return self._read_source(name, slot, device)
        spec, data = saved
        return spec, data if data.device == device else data.to(device)

    def _read_source(self, name: str, slot: Slot | None, device: torch.device) -> tuple[TensorSpec, Tensor]:
        if self.source is not None:
            spec = self.source.specs[name]
            return spec, as_tensor(self.source.read(name)).to(device, copy=True)
        assert slot is not None, f"{name} is neither in the model nor in a base"  # `check_bases` has refused it.
        return slot.spec, bytes_of(slot.tensor).to(device)

    def _leaf(self, name: str, slot: Slot | None) -> bytes:
        """Return the leaf of a base tensor; the model's tensors are hashed again only when they were written."""
        if self.source is not None:
            return self.source.leaf(name)
        assert slot is not None, f"{name} is neither in the model nor in a base"  # `check_bases` has refused it.
        is_copied = slot in self._copies  # If so, the model may hold a task's weights there now.
        key = slot, -1 if is_copied else slot.version
        if key not in self._leaves:
            spec, data = self._copies[slot] if is_copied else (slot.spec, slot.tensor)
            self._leaves[key] = leaf(spec, tensor_bytes(data))
        return self._leaves[key]

    def _check_model(self, name: str, slot: Slot) -> None:
        """Raise ModelMismatchError unless the model holds the source's values, converted to the model's dtype."""
        # A copied slot was compared before the copy, and may hold a task's weights by now.
        if self.source is None or slot in self._copies or (slot, slot.version) in self._compared:
            return
        spec, found = self.source.specs[name], slot.spec
        if spec.shape != found.shape or (spec.dtype != found.dtype and not {spec.dtype, found.dtype} <= CODED_DTYPES):
            raise ModelMismatchError(f"{slot.name}: expected {spec} as in the base, got {found}")
        base = tensor_from_bytes(self.source.read(name), spec).to(slot.device)
        expected = base if spec.dtype == found.dtype else convert_dtype(base, found.dtype)
        if not torch.equal(bytes_of(expected), bytes_of(slot.tensor)):
            problem = f"{slot.name}: expected the base's values, got others"
            raise ModelMismatchError(problem, Remedy("load the base's weights first"))
        self._compared.add((slot, slot.version))


@contextmanager
def open_running_base(base: "Source | Base | None") -> Iterator[RunningBase]:
    """Open the base of a model, and close it when the context ends.

    Parameters
    ----------
    base : path, mapping of tensors, Base, or None
        Where base tensors are read from; None for the model's own memory.
    """
    if base is None:
        yield RunningBase()
        return
    with as_base(base, WHOLE) as opened:
        yield RunningBase(opened)
