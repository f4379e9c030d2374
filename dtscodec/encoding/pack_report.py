"""Reports on packs that were written."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

Report = TypeVar("Report", bound="PackReport")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """A pack that was written; the base of the reports of all calls that write packs.

    Parameters
    ----------
    path : Path
        The pack.
    pack_id : str
        SHA-256 over the pack, as 64 hex digits.
    tensors : int
        Number of tensors of the fine-tune.
    fine_bytes : int
        Bytes of the fine-tune's tensors.
    pack_bytes : int
        Size of the pack file.
    seconds : float
        Wall time.
    """

    path: Path
    pack_id: str
    tensors: int
    fine_bytes: int
    pack_bytes: int
    seconds: float

    def extended(self, kind: type[Report], **more: Any) -> Report:
        """Return a report of another kind, with the values that both have and those that are given."""
        names = {field.name for field in fields(self)} & {field.name for field in fields(kind)}
        return kind(**{name: getattr(self, name) for name in names}, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeReport(PackReport):
    """A pack that was written, and what encoding lost.

    Parameters
    ----------
    relative_error : float
        Frobenius norm of what encoding loses, divided by that of the delta, over all tensors that have a counterpart
        in the base and are not stored exactly by a pattern; both without what rounding the fine-tune to its dtype
        explains. 0 without a delta.
    left_out : float
        Share of the delta's squared norm in tensors that stay as in the base although they changed, because the budget
        was better spent on others.

    Other parameters are those of `PackReport`.
    """

    relative_error: float
    left_out: float
