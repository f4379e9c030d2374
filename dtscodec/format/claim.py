"""The claim: what the author of a pack says about its quality (spec section 3.3). Nothing in a pack proves it."""

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, cast

from dtscodec.format.primitives.canonical_json import MAX_INTEGER, Fields, Json
from dtscodec.format.primitives.hex_digest import is_hex_digest

Measure: TypeAlias = Literal["kl", "agreement"]
"""The mean KL(fine-tune || decoded) of a prediction in nats, or the share of equal predictions."""

UNIT = 10**9
"""Figures are stored as multiples of 1/UNIT."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A measurement by the author of a pack, which meets a bound. Figures are integers, in billionths.

    Parameters
    ----------
    measure : {"kl", "agreement"}
        What was measured, of the decoded model against the fine-tune.
    bound : int
        The KL is at most, or the agreement at least this.
    figure : int
        The mean over all predictions.
    limit : int
        One-sided confidence limit of the mean.
    confidence : int
        Confidence of the limit, between 0 and `UNIT`.
    samples, predictions : int
        Number of samples, and of predictions on them.
    digest : str
        SHA-256 of the SHA-256 digests of all samples, ascending: 64 hex digits.

    Raises
    ------
    ValueError
        A value is out of range, or the limit does not meet the bound (rule S4).
    """

    measure: Measure
    bound: int
    figure: int
    limit: int
    confidence: int
    samples: int
    predictions: int
    digest: str

    def __post_init__(self) -> None:
        if self.measure == "kl":
            is_met = 0 <= self.figure <= self.limit <= self.bound <= MAX_INTEGER
        else:
            is_met = self.measure == "agreement" and 0 <= self.bound <= self.limit <= self.figure <= UNIT
        if not is_met:
            found = f"{self.measure!r:.60}: {self.figure}, {self.limit}, {self.bound}"
            raise ValueError(f"expected kl or agreement in the claim, its limit within its bound, got {found}")
        if not 0 < self.confidence < UNIT:
            raise ValueError(f"expected a confidence between 0 and 10**9 in the claim, got {self.confidence}")
        if not 0 < self.samples <= self.predictions <= MAX_INTEGER:
            found = f"{self.samples} and {self.predictions}"
            raise ValueError(f"expected samples, and at least as many predictions in the claim, got {found}")
        if not is_hex_digest(self.digest):
            raise ValueError(f"expected a digest of 64 hex digits in the claim, got {self.digest!r:.80}")


def claim_json(claim: Claim) -> dict[str, Json]:
    """Return a claim as JSON; the inverse of `parse_claim`."""
    return asdict(claim)


def parse_claim(document: Json) -> Claim:
    """Parse and check a claim; the inverse of `claim_json`.

    Raises
    ------
    UnsupportedError
        A key is unknown (rule S2).
    ValueError
        Not a claim (rule S4).
    """
    fields = Fields(document, "claim in the summary")
    # `Claim` refuses texts that are no measure.
    claim = Claim(
        measure=cast(Measure, fields.take("measure", str)),
        bound=fields.take("bound", int),
        figure=fields.take("figure", int),
        limit=fields.take("limit", int),
        confidence=fields.take("confidence", int),
        samples=fields.take("samples", int),
        predictions=fields.take("predictions", int),
        digest=fields.take("digest", str),
    )
    fields.done("3.3")
    return claim
