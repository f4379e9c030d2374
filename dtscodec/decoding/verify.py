"""Verification of a pack, and of its base, without decoding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtscodec.packs.pack import PackSource, as_pack
from dtscodec.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from dtscodec.checkpoints.base import Base
    from dtscodec.checkpoints.checkpoint import Source


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of a successful verification.

    Parameters
    ----------
    path : str
        The file; ``"pack"`` for one in memory.
    pack_id : str
        64 hex digits.
    size : int
        Bytes on disk.
    tensors : int
        Tensors of the fine-tune.
    is_base_checked : bool
        Whether the base tensors that the pack uses were checked, too.
    is_content_checked : bool
        Whether all tensors of a pack with a residual layer were decoded, and are what was encoded.
    """

    path: str
    pack_id: str
    size: int
    tensors: int
    is_base_checked: bool
    is_content_checked: bool


def verify(
    pack: PackSource,
    base: "Source | Base | None" = None,
    *,
    progress: ProgressCallback = no_progress,
) -> VerifyReport:
    """Check every byte of a pack and, with a base, every tensor and file of the base that it uses.

    With a base, the tensors of a pack with a residual layer are decoded, and so checked to be the fine-tune's.

    Files are checked if the base is a model directory. Without it, of a file that is stored as a change of the base's
    only the length and the header are checked, beside the checksum of its bytes.

    Parameters
    ----------
    pack : path, bytes or Pack
        The pack.
    base : path, mapping of tensors, or Base, optional
        The base. Without it, only the pack is checked, which needs no torch.
    progress : callable
        Called with the number of bytes of the pack that were checked since the last call.

    Returns
    -------
    VerifyReport

    Raises
    ------
    FormatError
        The pack is damaged, or breaks another rule of the spec (sections 3 to 6).
    BaseMismatchError
        The pack was made against another base (rules R1, R2, H2, H3 and F4).
    CheckpointError
        A file of the base cannot be read.
    """
    with as_pack(pack, whole=True) as opened:
        # Every byte of the pack first, then the tensors and files of the base that it uses.
        for count in opened.reader.check_all():
            progress(count)
        if base is not None:
            from dtscodec.decoding.decode import decode  # Imports torch.

            with decode(opened, base, whole=True) as decoded:
                decoded.check_base_tensors()
                # Whether the residual layer makes tensors exact shows only when they are decoded (rules X4 and X5).
                if decoded.is_exact:
                    for name in decoded:
                        decoded.read(name)
                # Beside a single file there may be files of anything.
                if decoded.base is not None and decoded.base.checkpoint.is_directory:
                    decoded.files()
        return VerifyReport(
            path=str(opened.path or "pack"),
            pack_id=opened.id,
            size=opened.size,
            tensors=len(opened.keys()),
            is_base_checked=base is not None and opened.summary.base is not None,
            is_content_checked=base is not None and opened.summary.content is not None,
        )
