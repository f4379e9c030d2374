"""Argument types and groups that several commands share."""

import argparse
import math
import re
from typing import TYPE_CHECKING, Any

from dtscodec.encoding.targets import MaxError, Rank, RankShare, Size

if TYPE_CHECKING:
    from dtscodec.promises.bounds import MaxKl, MinAgreement


def byte_count(text: str) -> int:
    """Parse a number of bytes such as 5GB, 500MB (powers of 1000) or 1000000.

    >>> byte_count("5GB"), byte_count("1.5 MB")
    (5000000000, 1500000)
    """
    try:
        size = Size.parse(text)
    except ValueError:
        size = None
    if size is None or size.unit != "bytes" or size.amount < 1:
        raise argparse.ArgumentTypeError(f"expected a size such as 5GB or 500MB, got {text!r}")
    return int(size.amount)


def rank(text: str) -> Rank | RankShare:
    """Parse a rank such as 16, or a share of the full rank such as 0.1; 1 is a rank, 1.0 a share.

    >>> rank("16"), rank("0.1")
    (Rank(components=16), RankShare(share=0.1))
    """
    try:
        return Rank(int(text)) if re.fullmatch(r"\d+", text) else RankShare(float(text))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"expected a rank such as 16 or a share such as 0.1, got {text!r}") from e


def pack_size(text: str) -> Size:
    """Parse a size such as 0.5%, 2MB or 0.08bpp."""
    try:
        return Size.parse(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def error(text: str) -> MaxError:
    """Parse a relative error between 0 and 1."""
    try:
        return MaxError(float(text))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"expected a relative error between 0 and 1, got {text!r}") from e


def max_kl(text: str) -> "MaxKl":
    """Parse a largest KL in nats.

    >>> max_kl("0.01")
    MaxKl(nats=0.01)
    """
    from dtscodec.promises.bounds import MaxKl

    try:
        return MaxKl(float(text))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"expected a KL in nats such as 0.01, got {text!r}") from e


def min_agreement(text: str) -> "MinAgreement":
    """Parse a smallest agreement, such as 97% or 0.97.

    >>> min_agreement("97%"), min_agreement("0.97")
    (MinAgreement(share=0.97), MinAgreement(share=0.97))
    """
    from dtscodec.promises.bounds import MinAgreement

    try:
        return MinAgreement(float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"expected an agreement such as 97% or 0.97, got {text!r}") from e


def count(text: str) -> int:
    """Parse an integer of at least 1."""
    if not re.fullmatch(r"\d{1,6}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def step_count(text: str) -> int:
    """Parse an integer of at least 0."""
    if not re.fullmatch(r"\d{1,6}", text):
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return int(text)


def finite_number(text: str) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value


def rename(text: str) -> tuple[str, str]:
    """Parse OLD=NEW: a prefix of names in the fine-tune, and the prefix in the base that replaces it."""
    old, equals, new = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, got {text!r}")
    return old, new


def add_base(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add the option that names the base: one path or, given several times, the list of a chain."""
    help_text = (
        "the base checkpoint: file, index or directory; for a pack on an exact pack, repeated: its base first, then "
        "each pack up to it"
    )
    parser.add_argument("--base", action=_Chain, help=help_text, **options)


class _Chain(argparse.Action):
    """Stores one path as it is, and several as a list."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest)
        paths = [] if before is None else before if isinstance(before, list) else [before]
        setattr(namespace, self.dest, [*paths, values] if paths else values)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_dequantize_base(parser: argparse.ArgumentParser) -> None:
    """Add the option to dequantize the base."""
    parser.add_argument(
        "--dequantize-base",
        action="store_true",
        help="read the weights of a quantized base dequantized: FP8, MXFP4, NVFP4, bitsandbytes, compressed-tensors",
    )


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add the option to replace an output."""
    parser.add_argument("-f", "--force", action="store_true", help="replace an output that exists")


def add_offload(parser: argparse.ArgumentParser) -> None:
    """Add the option that says whether a fit has whole models in memory."""
    parser.add_argument(
        "--offload",
        action=argparse.BooleanOptionalAction,
        help="have one layer of each model in memory at a time, with the same result; reads the checkpoints again in "
        "each step (default: for models that do not fit into the available memory)",
    )
