"""The side path of embeddings: y[i] += (u[id] s) v^T for each one's task."""

from torch import Tensor
from torch.nn import functional as F

from dtscodec.errors import ModelMismatchError
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.backend import Share
from dtscodec.kernels.packed import PackedFactors
from dtscodec.runtime.batch import Batch
from dtscodec.runtime.paths.path import Path, check_same_shape, has_factors, is_additive


class EmbeddingPath(Path):
    """Of `nn.Embedding`: weight [vocabulary, width]."""

    def check(self, attribute: str, entry: TensorEntry) -> None:
        """The vocabulary must be the same, since the layer itself looks up each id too."""
        check_same_shape(self.slots[attribute], entry)

    def run(self, x: Tensor, out: Tensor, batch: Batch) -> Tensor:
        """Add the rows of each task's delta."""
        if batch.size is not None and x.dim() == 1:
            detail = f"expected ids of {batch.size} requests, got {list(x.shape)} ids for all of them"
            raise ModelMismatchError(
                f"{self.slots['weight'].name}: {detail}; give all requests the same task, or use Switcher"
            )
        if batch.size is not None and batch.size > 1 and x.shape[0] == 1:  # Positions are the same for all requests.
            x, out = x.expand(batch.size, *x.shape[1:]), out.expand(batch.size, *out.shape[1:]).clone()
        ids, flat = x.reshape(-1), out.reshape(-1, out.shape[-1])
        shares = []
        for group, change, rows in self.changes("weight", batch, x.shape):
            payload = change.blocks[0].payload
            if has_factors(change) and len(change.blocks) == 1 and isinstance(payload, PackedFactors):
                shares.append(Share(payload, rows))
            elif not is_additive(change.entry):
                flat[rows] = F.embedding(ids[rows], self.whole(group.resident, change)).to(flat.dtype)
            else:
                flat[rows] += F.embedding(ids[rows], self.delta("weight", group.resident, change))
        self.backend.gather(ids, shares, flat)
        return flat.view(out.shape)
