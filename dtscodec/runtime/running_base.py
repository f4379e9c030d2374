"""The base of a running model: checked against packs, and kept beside the model where packs change it."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dtscodec.checkpoints.identity import Base, digest, leaf
from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes
from dtscodec.decoding.packed_tensors import as_tensor
from dtscodec.errors import BaseMismatchError, ModelMismatchError
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.packs.pack import Pack
from dtscodec.runtime.slots import Slot


class RunningBase:
    """The base tensors of a model, by the slots where the model has them.

    Parameters
    ----------
    source : Base, optional
        Where the base's tensors come from; without it they are what the model holds when they are first asked for.
        Then nothing may have changed them, so `keep` what a pack changes before it does.
    """

    def __init__(self, source: Base | None = None) -> None:
        self.source = source
        self._leaves: dict[tuple[Slot, int], bytes] = {}
        self._same: set[tuple[Slot, int]] = set()
        self._kept: dict[Slot | str, tuple[TensorSpec, Tensor]] = {}

    def check(self, pack: Pack, bases: Mapping[str, Slot | None]) -> None:
        """Check every base tensor that a pack uses, and the whole (rules H2 and H3).

        Parameters
        ----------
        pack : Pack
        bases : mapping
            Names of the base tensors that it uses, and where the model has them.

        Raises
        ------
        BaseMismatchError
            The base is another than the pack was made against.
        ModelMismatchError
            The model does not hold the base.
        """
        leaves = {name: self._leaf(name, slot) for name, slot in bases.items()}
        for name, found in leaves.items():
            expected = pack.reader.leaves[name]
            if not found.startswith(expected):
                detail = f"expected a leaf of {expected.hex()}, got {found[: len(expected)].hex()}"
                raise BaseMismatchError("base-leaf", f"{self.location}: {name!r}", f"{detail}; {self._way_out()}", "7")
        reference = pack.summary.base
        if reference is not None and (found := digest(leaves)).hex() != reference.digest:
            detail = f"expected the digest {reference.digest}, got {found.hex()}; {self._way_out()}"
            raise BaseMismatchError("base-digest", self.location, detail, "7")
        for name, slot in bases.items():
            if slot is not None:
                self._check_model(name, slot)

    @property
    def location(self) -> str:
        """Its name, for messages."""
        return self.source.location if self.source else "the model"

    def _way_out(self) -> str:
        if self.source:
            return "name the base that the pack was made against"
        return "load the base's own weights in their own dtype, or name the base with base="

    def keep(self, bases: Mapping[str, Slot | None], names: Iterable[str], device: torch.device) -> None:
        """Copy base tensors, for as long as the model runs."""
        for name in names:
            key = bases[name] or name
            if key not in self._kept:
                spec, data = self.fetch(name, bases[name], device)
                self._kept[key] = spec, data if self.source else data.clone()

    def kept_bytes(self, name: str, slot: Slot | None, device: torch.device) -> tuple[TensorSpec, Tensor] | None:
        """Spec and bytes, uint8 [nbytes], of a tensor, if it was kept; on a device."""
        if (slot or name) not in self._kept:
            return None
        spec, data = self._kept[slot or name]
        return spec, data.to(device)

    def read(self, name: str, slot: Slot | None, device: torch.device) -> tuple[TensorSpec, Tensor]:
        """The same of a tensor that was kept."""
        spec, data = self._kept[slot or name]
        return spec, data if data.device == device else data.to(device)

    def original(self, slot: Slot) -> Tensor | None:
        """What the model itself had in a slot, if that is kept: uint8 [nbytes]."""
        return self._kept[slot][1] if self.source is None and slot in self._kept else None

    def fetch(self, name: str, slot: Slot | None, device: torch.device) -> tuple[TensorSpec, Tensor]:
        """Spec and bytes of a tensor from where the base is: fresh, or the model's own memory."""
        if self.source is not None:
            spec = self.source.specs[name]
            return spec, as_tensor(self.source.read(name)).to(device, copy=True)
        found = self._in_model(name, slot)
        return found.spec, bytes_of(found.tensor).to(device)

    def _leaf(self, name: str, slot: Slot | None) -> bytes:
        if self.source is not None:
            return self.source.leaf(name)
        found = self._in_model(name, slot)
        is_kept = found in self._kept  # Then the model may hold a task there.
        key = found, -1 if is_kept else found.version
        if key not in self._leaves:
            spec, data = self._kept[found] if is_kept else (found.spec, found.tensor)
            self._leaves[key] = leaf(spec, tensor_bytes(data))
        return self._leaves[key]

    def _in_model(self, name: str, slot: Slot | None) -> Slot:
        if slot is not None:
            return slot
        detail = "expected a tensor of this name, got none; name the base with base="
        raise BaseMismatchError("base-tensor", f"the model: {name!r}", detail, "4.4")

    def _check_model(self, name: str, slot: Slot) -> None:
        """Raise ModelMismatchError unless the model holds the base's values, in whatever dtype it has them."""
        if self.source is None or slot in self._kept or (slot, slot.version) in self._same:
            return
        spec, found = self.source.specs[name], slot.spec
        if spec.shape != found.shape or (spec.dtype != found.dtype and not {spec.dtype, found.dtype} <= CODED_DTYPES):
            raise ModelMismatchError(f"{slot.name}: expected {spec} as in the base, got {found}")
        base = tensor_from_bytes(self.source.read(name), spec).to(slot.device)
        expected = base if spec.dtype == found.dtype else convert_dtype(base, found.dtype)
        if not torch.equal(bytes_of(expected), bytes_of(slot.tensor)):
            raise ModelMismatchError(
                f"{slot.name}: expected the base's values, got others; load the base's weights first"
            )
        self._same.add((slot, slot.version))


def bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in C order: uint8 [nbytes], a view if it is contiguous."""
    return tensor.contiguous().view(-1).view(torch.uint8)
