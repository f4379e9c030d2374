"""Claims of packs as words and figures for people. They are the author's, and nothing in a pack proves them."""

from dtscodec.format.claim import UNIT, Claim


def claim_facts(claim: Claim) -> dict[str, str | int | float]:
    """Return a claim as a document, its figures in nats or as shares.

    Parameters
    ----------
    claim : Claim
        From the summary of a pack.
    """
    figures = {name: getattr(claim, name) / UNIT for name in ("bound", "figure", "limit", "confidence")}
    counts = {"samples": claim.samples, "predictions": claim.predictions}
    return {"measure": claim.measure, **figures, **counts, "digest": claim.digest}


def claim_figures(claim: Claim) -> dict[str, float]:
    """Return the figures of a claim for the index of a directory, by name.

    Parameters
    ----------
    claim : Claim
        From the summary of a pack.

    Examples
    --------
    >>> claim_figures(Claim("kl", 10_000_000, 8_000_000, 9_000_000, 950_000_000, 128, 15_872, 64 * "0"))
    {'claimed_kl': 0.008, 'claimed_kl_limit': 0.009, 'claimed_confidence': 0.95}
    """
    name = f"claimed_{claim.measure}"
    values = {name: claim.figure, f"{name}_limit": claim.limit, "claimed_confidence": claim.confidence}
    return {key: value / UNIT for key, value in values.items()}


def claim_words(claim: Claim) -> str:
    """Return a claim in words.

    Parameters
    ----------
    claim : Claim
        From the summary of a pack.

    Examples
    --------
    >>> claim_words(Claim("kl", 10_000_000, 8_120_000, 9_500_000, 950_000_000, 128, 15_872, 64 * "0"))
    'KL 0.00812, with 95 % confidence at most 0.0095; promised 0.01; 128 samples, 15,872 predictions'
    """
    side = {"kl": "at most", "agreement": "at least"}[claim.measure]
    figure, limit, bound = (measure_words(claim.measure, value) for value in (claim.figure, claim.limit, claim.bound))
    confidence = f"with {100 * claim.confidence / UNIT:.4g} % confidence {side} {limit}"
    counts = f"{claim.samples:,} samples, {claim.predictions:,} predictions"
    return f"{_NAMES[claim.measure]} {figure}, {confidence}; promised {bound}; {counts}"


_NAMES = {"kl": "KL", "agreement": "agrees"}


def measure_words(measure: str, value: int) -> str:
    """Return a figure of a claim in words: nats, or percent.

    Parameters
    ----------
    measure : {"kl", "agreement"}
        What was measured.
    value : int
        The figure, in billionths.

    Examples
    --------
    >>> measure_words("kl", 8_120_000), measure_words("agreement", 972_500_000)
    ('0.00812', '97.25 %')
    """
    return f"{value / UNIT:.3g}" if measure == "kl" else f"{100 * value / UNIT:.4g} %"
