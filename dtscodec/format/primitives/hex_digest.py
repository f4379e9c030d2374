"""SHA-256 digests as text."""

import re

_DIGEST = re.compile("[0-9a-f]{64}")


def is_hex_digest(text: str) -> bool:
    """Return whether a text is a SHA-256 as the format writes it: 64 lower-case hex digits.

    >>> is_hex_digest(64 * "a"), is_hex_digest(64 * "A"), is_hex_digest("a")
    (True, False, False)
    """
    return _DIGEST.fullmatch(text) is not None
