"""Canonical JSON: one text for one document (spec section 4.1, after RFC 8785), and strict reading of its objects."""

import json
from typing import NoReturn, TypeAlias, TypeVar

from dtscodec.errors import UnsupportedError

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | None"
"""Values of canonical JSON; `True` is the only boolean."""

T = TypeVar("T")
_REQUIRED = object()

MAX_DEPTH = 8
"""Deepest nesting of lists and objects."""
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
    # A text is canonical if writing its document gives the same bytes.
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
    # bool is a subclass of int: False, which the format excludes, must not pass for 0.
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MAX_INTEGER:
            raise ValueError("integer beyond 2**53")
        return value
    if depth == 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_check(item, depth - 1) for item in value]
    if isinstance(value, dict):
        # UTF-16 units, not code points, by which Python sorts.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _check(value[key], depth - 1) for key in keys}
    raise ValueError(f"{value!r} has no place in it")


class Fields:
    """Strict reader of one JSON object, which need not be canonical: reading a field removes it.

    No field may be missing, have another type than expected, or remain at the end (`end`, `done`).

    Parameters
    ----------
    document : Json
        The object.
    where : str
        Name of the object, for messages.

    Raises
    ------
    ValueError
        The document is not an object. The methods raise it for a missing field or one of another type.
    """

    def __init__(self, document: Json, where: str) -> None:
        if not isinstance(document, dict):
            raise ValueError(f"expected an object for {where}, got {document!r:.60}")
        self._left = dict(document)
        self._where = where

    def take(self, key: str, kind: type[T], default: object = _REQUIRED) -> T:
        """Return the field `key`, which must be of type `kind`; `default` if it is absent."""
        if key not in self._left:
            if default is _REQUIRED:
                raise ValueError(f"expected the key {key!r} in {self._where}")
            return default  # type: ignore[return-value]
        value = self._left.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"expected {kind.__name__} for {key!r} in {self._where}, got {value!r:.60}")
        return value

    def take_list(self, key: str, kind: type[T], default: object = _REQUIRED) -> list[T]:
        """Return a field that is a list of items of one type; `default` if it is absent."""
        items = self.take(key, list, default)
        for item in items:
            if not isinstance(item, kind) or (kind is int and isinstance(item, bool)):
                raise ValueError(f"expected {kind.__name__} in {key!r} of {self._where}, got {item!r:.60}")
        return items

    def take_flag(self, key: str, value: str) -> bool:
        """Return whether a field is present; ValueError if it has another value than `value`."""
        given = self.take(key, str, None)
        if given not in (None, value):
            raise ValueError(f"expected {value!r} for {key!r}, got {given!r}")
        return given is not None

    def take_any(self, key: str) -> Json:
        """Return a field of any type; None if it is absent."""
        return self._left.pop(key, None)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def unknown(self, what: str, section: str) -> NoReturn:
        """Raise UnsupportedError for an item that version 1 does not define.

        Parameters
        ----------
        what : str
            The item, for the message.
        section : str
            Section of the spec that defines the known ones.
        """
        raise UnsupportedError("unknown", self._where, f"expected what version 1 knows, got {what}", section)

    def end(self) -> None:
        """Raise ValueError if fields remain."""
        if self._left:
            raise ValueError(f"expected no key {min(self._left)!r:.60} in {self._where}")

    def done(self, section: str) -> None:
        """Raise UnsupportedError, citing a section of the spec, if fields remain (rules S2 and I3)."""
        if self._left:
            self.unknown(f"the key {min(self._left)!r:.60}", section)
