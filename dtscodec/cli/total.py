"""How much there is to read, for progress bars."""

from collections.abc import Iterable


def total_bytes(paths: Iterable[str]) -> int:
    """Bytes of the tensors of some checkpoints."""
    from dtscodec.checkpoints.open import open_checkpoint

    total = 0
    for path in paths:
        with open_checkpoint(path) as checkpoint:
            total += sum(spec.nbytes for spec in checkpoint.specs.values())
    return total
