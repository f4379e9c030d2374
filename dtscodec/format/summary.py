"""The summary: the one metadata string of a pack (spec section 3.3)."""

from dataclasses import asdict, dataclass
from typing import cast

from dtscodec.errors import FormatError, Remedy, UnsupportedError
from dtscodec.format.claim import Claim, claim_json, parse_claim
from dtscodec.format.dtypes import DType
from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.primitives.hex_digest import is_hex_digest

VERSION = 1
RESIDUAL = "residual"
"""Feature of packs with a residual layer (spec section 15)."""
FEATURES: frozenset[str] = frozenset({RESIDUAL})
"""Required features of version 1 that this reader supports."""

MIN_BLOCK, MAX_BLOCK = 2**16, 2**24
"""Smallest and largest digest block, in bytes."""

DEQUANTIZED_DTYPES: frozenset[DType] = frozenset({"BF16", "F16", "F32"})
"""Dtypes that the weights of a quantized base may be dequantized to (spec section 7.1)."""

_NEWER = Remedy("a newer dtscodec may read it")


@dataclass(frozen=True, slots=True)
class BaseRef:
    """The base that a pack needs.

    Parameters
    ----------
    digest : str
        Content digest over the base tensors used (spec section 7), 64 hex digits.
    repo, revision : str or None
        Hub repository and commit of the base, if known.
    dequantized : {"BF16", "F16", "F32"} or None
        Dtype of the weights of a quantized base that is read dequantized (spec section 7.1); None for a base that is
        used as it is stored.
    pack : str or None
        Id of the pack that decodes to the base, 64 hex digits (spec section 15.6); None for a base of its own.
    """

    digest: str
    repo: str | None = None
    revision: str | None = None
    dequantized: DType | None = None
    pack: str | None = None

    def __post_init__(self) -> None:
        if not is_hex_digest(self.digest):
            raise ValueError(f"expected a digest of 64 hex digits, got {self.digest!r:.80}")
        _check_texts(self.repo, self.revision)
        if self.pack is not None and not is_hex_digest(self.pack):
            raise ValueError(f"expected a pack id of 64 hex digits, got {self.pack!r:.80}")
        if self.dequantized is not None and self.dequantized not in DEQUANTIZED_DTYPES:
            raise ValueError(f"expected a base dequantized to BF16, F16 or F32, got {self.dequantized!r:.60}")


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a pack, readable without its index.

    Parameters
    ----------
    tensors : int
        Number of tensors.
    block : int
        Size of a digest block in bytes, a power of two.
    base : BaseRef, optional
        None if no tensor uses a base.
    task : str, optional
        Short name of the fine-tune.
    encoder : str, optional
        Program that wrote the pack, and its settings.
    claim : Claim, optional
        What its author says about its quality.
    optional : tuple of str
        Features that a reader may ignore, ascending.
    content : str, optional
        Digest of what a pack with a residual layer decodes to (spec section 15.1), 64 hex digits.
    """

    tensors: int
    block: int = MIN_BLOCK
    base: BaseRef | None = None
    task: str | None = None
    encoder: str | None = None
    claim: Claim | None = None
    optional: tuple[str, ...] = ()
    content: str | None = None

    def __post_init__(self) -> None:
        if not MIN_BLOCK <= self.block <= MAX_BLOCK or self.block & (self.block - 1):
            raise ValueError(f"expected a block of 2**16 to 2**24 bytes, got {self.block}")
        if self.tensors < 0:
            raise ValueError(f"expected a number of tensors, got {self.tensors}")
        if list(self.optional) != sorted(set(self.optional)):
            raise ValueError("expected features ascending and unique")
        _check_texts(self.task, self.encoder, *self.optional)
        if self.content is not None and not is_hex_digest(self.content):
            raise ValueError(f"expected a content digest of 64 hex digits, got {self.content!r:.80}")

    @property
    def requires(self) -> tuple[str, ...]:
        """Features that a reader must know, ascending."""
        return () if self.content is None else (RESIDUAL,)

    @property
    def dequantized_base(self) -> DType | None:
        """Dtype to which the weights of a quantized base are dequantized; None for a base as it is stored."""
        return self.base.dequantized if self.base else None


def _check_texts(*texts: str | None) -> None:
    if "" in texts:
        raise ValueError("expected texts that are not empty")


def summary_text(summary: Summary) -> str:
    """Return the canonical text of a summary; the inverse of `parse_summary`."""
    document: dict[str, Json] = {"version": VERSION, "tensors": summary.tensors, "block": summary.block}
    if summary.requires:
        document["requires"] = list(summary.requires)
    if summary.optional:
        document["optional"] = list(summary.optional)
    if summary.base:
        document["base"] = {key: value for key, value in asdict(summary.base).items() if value is not None}
    for key, value in (("task", summary.task), ("encoder", summary.encoder), ("content", summary.content)):
        if value is not None:
            document[key] = value
    if summary.claim:
        document["claim"] = claim_json(summary.claim)
    return canonical.dumps(document).decode("utf-8")


def parse_summary(text: str, where: str) -> Summary:
    """Parse and check a summary; the inverse of `summary_text`.

    Parameters
    ----------
    text : str
        Canonical JSON.
    where : str
        Name of the pack, for messages.

    Raises
    ------
    UnsupportedError
        Another version, an unknown key, or an unknown required feature (rules S1 to S3).
    FormatError
        Not a summary (rule S2).
    """
    try:
        # The version comes first: other versions may have other keys.
        document = canonical.loads(text.encode("utf-8"))
        fields = Fields(document, "the summary")
        version = fields.take_any("version")
        # In Python, True equals 1.
        if version is True or version != VERSION:
            detail = f"expected version {VERSION}, got {version!r:.60}"
            raise UnsupportedError("version", "the summary", detail, "3.3", _NEWER)
        requires = _parse_requires(fields)
        # Unknown features may have keys of their own.
        unknown = [feature for feature in requires if feature not in FEATURES]
        if unknown:
            detail = f"expected no feature beyond {', '.join(sorted(FEATURES))}, got {', '.join(unknown)}"
            raise UnsupportedError("feature", "the summary", detail, "3.3", _NEWER)
        summary = _parse(fields)
        if requires != summary.requires:
            raise ValueError(f"expected a content digest exactly where {RESIDUAL!r} is required")
        if summary_text(summary) != text:
            raise ValueError("expected defaults to be left out")
    except UnsupportedError as error:
        raise error.within(where) from error
    except ValueError as error:
        raise FormatError("summary", where, str(error), "3.3") from error
    return summary


def _parse_requires(fields: Fields) -> tuple[str, ...]:
    requires = fields.take_list("requires", str, [])
    if requires != sorted(set(requires)):
        raise ValueError("expected features ascending and unique")
    _check_texts(*requires)
    return tuple(requires)


def _parse(fields: Fields) -> Summary:
    summary = Summary(
        tensors=fields.take("tensors", int),
        block=fields.take("block", int),
        base=_parse_base(fields),
        task=fields.take("task", str, None),
        encoder=fields.take("encoder", str, None),
        claim=parse_claim(fields.take_any("claim")) if "claim" in fields else None,
        optional=tuple(fields.take_list("optional", str, [])),
        content=fields.take("content", str, None),
    )
    fields.done("3.3")
    return summary


def _parse_base(fields: Fields) -> BaseRef | None:
    if "base" not in fields:
        return None
    base = Fields(fields.take_any("base"), "base in the summary")
    texts = base.take("digest", str), base.take("repo", str, None), base.take("revision", str, None)
    # `BaseRef` refuses texts that are no such dtype.
    dequantized = cast("DType | None", base.take("dequantized", str, None))
    ref = BaseRef(*texts, dequantized, base.take("pack", str, None))
    base.done("3.3")
    return ref
