"""Canonical JSON: one text for one document (spec section 4.1, after RFC 8785)."""

import json
from typing import TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | None"
"""Values of canonical JSON; `True` is the only boolean."""

MAX_DEPTH = 8
MAX_INTEGER = 2**53 - 1


def dumps(document: Json) -> bytes:
    r"""Serialize a document; the inverse of `loads`: ``loads(dumps(x)) == x``.

    Raises
    ------
    ValueError
        A value that canonical JSON cannot hold.

    Examples
    --------
    >>> dumps({"b": [1, None], "a": "é"})
    b'{"a":"\xc3\xa9","b":[1,null]}'
    """
    ordered = _check(document, MAX_DEPTH)
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def loads(text: bytes) -> Json:
    """Parse a canonical text; the inverse of `dumps`.

    Raises
    ------
    ValueError
        The text is not JSON, or not the canonical text of its document.

    Examples
    --------
    >>> loads(b'{"a":1}')
    {'a': 1}
    >>> loads(b'{"a": 1}')
    Traceback (most recent call last):
    ValueError: expected canonical JSON
    """
    try:
        document: Json = json.loads(text.decode("utf-8"))
        canonical = dumps(document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected canonical JSON, got: {error}") from error
    if canonical != text:
        raise ValueError("expected canonical JSON")
    return document


def _check(value: Json, depth: int) -> Json:
    """Return the value with keys in order (by UTF-16 units, as RFC 8785 has it), or raise ValueError."""
    if value is None or value is True or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MAX_INTEGER:
            raise ValueError("integer beyond 2**53")
        return value
    if depth == 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_check(item, depth - 1) for item in value]
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _check(value[key], depth - 1) for key in keys}
    raise ValueError(f"{value!r} has no place in it")
