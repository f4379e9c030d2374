"""Strict reading of a JSON object: no field missing, none of another type, none left over."""

from typing import NoReturn, TypeVar

from dtscodec.errors import UnsupportedError
from dtscodec.format.primitives.canonical_json import Json

T = TypeVar("T")
_REQUIRED = object()


class Fields:
    """The fields of one JSON object, removed as they are read.

    Parameters
    ----------
    document : Json
        Expected to be an object.
    where : str
        Its place, for messages.

    Raises
    ------
    ValueError
        The document is no object. The methods raise it for a field that is missing or of another type.
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
        """Return whether a field is present; it may have one value only."""
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
        """Raise UnsupportedError for something that version 1 does not define."""
        raise UnsupportedError("unknown", self._where, f"expected what version 1 knows, got {what}", section)

    def end(self) -> None:
        """Raise ValueError if fields are left over."""
        if self._left:
            raise ValueError(f"expected no key {min(self._left)!r:.60} in {self._where}")

    def done(self, section: str) -> None:
        """Raise UnsupportedError if fields are left over (rules S2 and I3)."""
        if self._left:
            self.unknown(f"the key {min(self._left)!r:.60}", section)
