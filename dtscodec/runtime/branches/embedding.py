"""Side branch of embeddings: y[i] += (u[id] s) v^T for the task of each id."""

from torch import Tensor
from torch.nn import functional as F

from dtscodec.errors import ModelMismatchError, Remedy
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.backend import Share
from dtscodec.runtime.branches.branch import SideBranch, check_same_shape, is_additive, single_factors
from dtscodec.runtime.request_batch import RequestBatch


class EmbeddingBranch(SideBranch):
    """Side branch of `nn.Embedding`: weight [vocabulary, width]."""

    def check(self, attribute: str, entry: TensorEntry) -> None:
        """Check that a task's weight has the layer's shape: its vocabulary too, since the layer looks up every id."""
        check_same_shape(self.slots[attribute], entry)

    def forward(self, x: Tensor, out: Tensor, batch: RequestBatch) -> Tensor:
        """Add the looked-up rows of each task's delta."""
        # One-dimensional ids have no dimension of requests: all requests share the rows looked up.
        if batch.size is not None and x.dim() == 1:
            self._check_unused(x, batch)
            return out
        if batch.size is not None and batch.size > 1 and x.shape[0] == 1:  # Position ids, which all requests share.
            x, out = x.expand(batch.size, *x.shape[1:]), out.expand(batch.size, *out.shape[1:]).clone()
        ids, flat = x.reshape(-1), out.reshape(-1, out.shape[-1])
        # Factors go to the backend in one call; other tensors are formed, then looked up.
        shares = []
        for group, change, rows in self.changes("weight", batch, x.shape):
            if (factors := single_factors(change)) is not None:
                shares.append(Share(factors, rows))
            elif not is_additive(change.entry):
                flat[rows] = F.embedding(ids[rows], self.rebuild(group.resident, change)).to(flat.dtype)
            else:
                flat[rows] += F.embedding(ids[rows], self.delta("weight", group.resident, change))
        self.backend.gather(ids, shares, flat)
        return flat.view(out.shape)

    def _check_unused(self, ids: Tensor, batch: RequestBatch) -> None:
        """Raise ModelMismatchError if a task changes an embedding from which all requests share rows."""
        slot = self.slots["weight"]
        if any(slot in group.resident.changes for group in batch.groups):
            detail = f"expected ids of {batch.size} requests, got {list(ids.shape)} ids for all of them"
            raise ModelMismatchError(
                f"{slot.name}: {detail}", Remedy("give all requests the same task, or use Switcher")
            )
