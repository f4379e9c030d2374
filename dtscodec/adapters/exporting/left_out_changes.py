"""Changes of a pack that an adapter does not carry: the reason, their share of the delta, and their relative size."""

from dataclasses import dataclass

from dtscodec.adapters.exporting.tensor_changes import TensorChange
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.errors import Remedy
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.linalg.chunks import squared_norm


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A changed tensor that an adapter does not carry.

    Parameters
    ----------
    name : str
        Name of the tensor in the pack.
    why : str
        The reason, as a phrase.
    share : float or None
        Share of the tensor's delta in the squared norm of all deltas. None if it is unknown or the tensor is new. It
        does not measure the effect on outputs: a norm has few elements, and scales every activation.
    relative_change : float or None
        Norm of the tensor's delta, divided by that of the base's tensor. None if either is unknown.
    remedy : Remedy, optional
        Advice by which an adapter would carry it.
    """

    name: str
    why: str
    share: float | None
    relative_change: float | None
    remedy: Remedy | None = None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The reason why an adapter cannot carry a change as a LoRA.

    Parameters
    ----------
    why : str
        The reason, as a phrase.
    change : TensorChange or None
        The change; None for a name that is tied to the changed tensor.
    remedy : Remedy, optional
        Advice by which an adapter would carry it.
    """

    why: str
    change: TensorChange | None
    remedy: Remedy | None = None

    def left_out(self, name: str, total: float, base: Base | None) -> LeftOut:
        """Return the change as one that is left out.

        Parameters
        ----------
        name : str
            Name of the tensor in the pack.
        total : float
            Squared norm of all deltas.
        base : Base or None
            The base.

        Raises
        ------
        CheckpointError
            The base cannot be read.
        """
        square = self.change.square if self.change else None
        share = None if square is None else square / (total or 1.0)
        relative = _relative_change(self.change, base) if self.change and base else None
        return LeftOut(name, self.why, share, relative, self.remedy)


def _relative_change(change: TensorChange, base: Base) -> float | None:
    """Return the norm of a delta divided by that of the base's tensor, if both are known."""
    spec = base.specs.get(change.counterpart)
    if change.square is None or spec is None or spec.dtype not in CODED_DTYPES:
        return None
    stored = StoredTensor(change.counterpart, spec, base.read(change.counterpart))
    square = squared_norm(stored.tensor())
    return float((change.square / square) ** 0.5) if square else None
