"""Side branch of linear layers: y += ((x v) s) u^T for each row's task, or the output of a layer that a task stores."""

import math
from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from dtscodec.decoding.reconstruct import LoadedTensor
from dtscodec.errors import ModelMismatchError
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.backend import Rows, Share
from dtscodec.kernels.packed import PackedFactors
from dtscodec.runtime.branches.branch import SideBranch, check_same_shape, has_factors, is_additive
from dtscodec.runtime.branches.request_batch import RequestBatch
from dtscodec.runtime.resident_pack import ResidentPack


class LinearBranch(SideBranch):
    """Side branch of `nn.Linear`: weight [out, in], bias [out]."""

    transposed = False
    """True if the layer holds its weight as [in, out]."""

    @property
    def inputs(self) -> int:
        """The layer's number of input features."""
        return self.slots["weight"].shape[0 if self.transposed else 1]

    def check(self, attribute: str, entry: TensorEntry) -> None:
        """Check a task's weight or bias. A head, stored as a whole, may have another number of outputs."""
        slot = self.slots[attribute]
        if is_additive(entry) or self.transposed:
            check_same_shape(slot, entry)
        elif entry.spec.shape[1:] != slot.shape[1:] or entry.spec.dtype not in CODED_DTYPES:
            raise ModelMismatchError(
                f"{slot.name}: expected {slot.spec} but for its outputs, got {entry.spec} in the pack"
            )

    def forward(self, x: Tensor, out: Tensor, batch: RequestBatch) -> Tensor:
        """Add each task's deltas; rows of a task that stores the whole layer get that layer's output instead."""
        leading = x.shape[:-1]
        flat_x, flat = x.reshape(-1, x.shape[-1]), out.reshape(-1, out.shape[-1])
        # Low-rank deltas first, then biases; whole layers last, since they replace their rows.
        self._add_factors(flat_x, flat, batch, leading)
        for group, change, rows in self.changes("bias", batch, leading):
            # The bias of a head of another width belongs to its whole layer, below.
            if change.entry.spec.shape == self.slots["bias"].shape:
                flat[rows] += self.delta("bias", group.resident, change)
        own = {}
        for group, change, rows in self.changes("weight", batch, leading):
            if not is_additive(change.entry):
                y = self._own_output(flat_x[rows], group.resident, change)
                flat = _replace_rows(flat, rows, y)
                own[group] = y.shape[-1]
        # Rows may differ in width now; `RequestBatch.outputs` cuts them.
        batch.note_widths(out.shape[-1], own)
        return flat.view(*leading, flat.shape[-1])

    def _add_factors(self, x: Tensor, out: Tensor, batch: RequestBatch, leading: Sequence[int]) -> None:
        """Add x D^T for the deltas D of all tasks.

        Low-rank blocks that cover the same rows of the weight, of whatever tasks, go to the backend in one call.
        """
        shares: dict[tuple[int, int], list[Share]] = defaultdict(list)
        # Blocks of the same rows of the weight go to the backend in one call.
        for group, change, rows in self.changes("weight", batch, leading):
            if has_factors(change):
                for block in change.blocks:
                    if isinstance(block.payload, PackedFactors):
                        part = block.row, block.row + block.block.height
                        shares[part].append(Share(block.payload, rows, self.transposed))
            elif is_additive(change.entry):  # Elements, not factors: form the delta.
                delta = self.delta("weight", group.resident, change)
                out[rows] += x[rows].to(delta.dtype) @ (delta if self.transposed else delta.T)
        for part, found in shares.items():
            # Rows of a weight [in, out] are inputs of the layer, those of [out, in] are outputs.
            if self.transposed:
                self.backend.apply(x[:, slice(*part)], found, out)
            else:
                self.backend.apply(x, found, out[:, slice(*part)])

    def _own_output(self, x: Tensor, resident: ResidentPack, change: LoadedTensor) -> Tensor:
        """Return the output of a layer that a task stores as a whole."""
        weight = self.rebuild(resident, change).to(x.dtype)
        bias = self.slots.get("bias")
        own_bias = resident.loaded(bias) if bias is not None and bias in resident.changes else None
        if own_bias is not None:
            added: Tensor | None = self.rebuild(resident, own_bias).to(x.dtype)
        else:  # The fine-tune has the base's bias, unless its head has another number of outputs: then it has none.
            outputs = weight.shape[1:] if self.transposed else weight.shape[:1]
            added = bias.tensor if bias is not None and bias.shape == outputs else None
        return F.linear(x, weight.T if self.transposed else weight, added)


class Conv1DBranch(LinearBranch):
    """Side branch of GPT-2's `Conv1D`: weight [in, out], bias [out]."""

    transposed = True


def _replace_rows(out: Tensor, rows: Rows, y: Tensor) -> Tensor:
    """Replace rows of an output; the narrower of the two is padded with minus infinity, as logits that never win."""
    width = max(out.shape[-1], y.shape[-1])
    wide, y = (F.pad(part, (0, width - part.shape[-1]), value=-math.inf) for part in (out, y))
    wide[rows] = y
    return wide
