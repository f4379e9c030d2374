"""The reports on packs that were written, which all calls that write packs return."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from dtscodec.encoding.notes import Note

Report = TypeVar("Report", bound="PackReport")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """The report on a pack that was written; base class of the reports of all calls that write packs.

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
    notes : tuple of Note
        Notes on how the fine-tune was stored, in the order of their kinds.
    """

    path: Path
    pack_id: str
    tensors: int
    fine_bytes: int
    pack_bytes: int
    seconds: float
    notes: tuple[Note, ...] = ()

    def extended(self, kind: type[Report], **more: Any) -> Report:
        """Return a report of another class: the values that both classes have, and those that are given.

        Parameters
        ----------
        kind : type
            The class, derived from `PackReport`.
        more
            Values of the other fields, by name.
        """
        names = {field.name for field in fields(self)} & {field.name for field in fields(kind)}
        return kind(**{name: getattr(self, name) for name in names}, **more)


@dataclass(frozen=True, slots=True)
class ResidualReport:
    """The report on a residual layer.

    Parameters
    ----------
    front_bytes : int
        Bytes of the front: what a decoder without the layer reads.
    chunks : dict of str to int
        Bytes of chunks by the prediction of their tensors, ``"base"`` or ``"delta"``.
    elements : dict of str to int
        Elements of these tensors.
    weight_files : int
        Bytes that headers of the fine-tune's safetensors files take; 0 if it has none, so that only its tensors are
        restored bit for bit.
    trials : dict of str to int
        Bytes of the whole pack by the size of its codes, of all that were tried.
    """

    front_bytes: int
    chunks: dict[str, int] = field(default_factory=dict)
    elements: dict[str, int] = field(default_factory=dict)
    weight_files: int = 0
    trials: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeReport(PackReport):
    """The report on a pack that was encoded, with the loss by encoding; of an exact pack, that of its front.

    Parameters
    ----------
    relative_error : float
        Frobenius norm of the loss, divided by that of the delta, over all tensors that have a counterpart in the base
        and that no pattern stores exactly; both without what rounding the fine-tune to its dtype explains. 0 without a
        delta.
    left_out : float
        Share of the delta's squared norm in tensors that changed but are stored as equal to the base, because the
        budget had more benefit elsewhere.
    exact_bytes : int
        Bytes of the pack in weights that are stored exactly whatever the budget: quantized ones with their scales, and
        those that a pattern names. The two figures above are about the other tensors.
    residual : ResidualReport, optional
        The residual layer of an exact pack.

    Other parameters are those of `PackReport`.
    """

    relative_error: float
    left_out: float
    exact_bytes: int = 0
    residual: ResidualReport | None = None

    def with_residual(self, whole: "EncodeReport") -> "EncodeReport":
        """Return the report on a pack with a residual layer: this one is on its front, `whole` on the addition."""
        return replace(
            self,
            path=whole.path,
            pack_id=whole.pack_id,
            pack_bytes=whole.pack_bytes,
            seconds=self.seconds + whole.seconds,
            residual=whole.residual,
        )
