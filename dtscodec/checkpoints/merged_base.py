"""Metadata of a merged base: how it was made, and from which fine-tunes (spec section 14)."""

from collections.abc import Mapping

MADE_BY, MADE_OF = "dtscodec_merge", "dtscodec_merge_of"
"""Keys of the metadata: method with options, and names of the fine-tunes in JSON."""

MAX_MADE_BY = 500
"""Most characters of the method that a pack repeats: checkpoints of unknown origin may have any text there."""


def merge_description(metadata: Mapping[str, str]) -> str | None:
    """Return the method and options of the merge that made a base; None for one that dtscodec did not merge.

    Parameters
    ----------
    metadata : mapping of str to str
        The base's metadata.

    Examples
    --------
    >>> merge_description({"dtscodec_merge": "ties(alpha=1)"}), merge_description({"format": "pt"})
    ('ties(alpha=1)', None)
    """
    text = metadata.get(MADE_BY, "")
    return text if 0 < len(text) <= MAX_MADE_BY and text.isprintable() else None
