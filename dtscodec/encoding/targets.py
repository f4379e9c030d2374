"""Targets: what an encode aims at, such as the largest size of the pack or the rank of every matrix."""

import re
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import Literal, TypeAlias, get_args

from dtscodec.errors import ConfigError

Unit = Literal["bytes", "share", "bpp"]

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
PLACES = 18
"""Decimal places that a size may have."""
_TEXT = re.compile(r"(\d{0,18}\.?\d{1,18})\s*(%|bpp|[kKMGT]?B?)")


@dataclass(frozen=True, slots=True)
class Size:
    """The largest size of the pack file.

    Parameters
    ----------
    amount : Fraction
        Above 0.
    unit : {"bytes", "share", "bpp"}
        Bytes; a share of the bytes of the fine-tune's tensors, as the fine-tune stores them; or bits per parameter of
        the fine-tune.

    Raises
    ------
    ConfigError
        A value is out of range.

    Examples
    --------
    >>> Size.parse("0.5%")
    Size(amount=Fraction(1, 200), unit='share')
    """

    amount: Fraction
    unit: Unit

    def __post_init__(self) -> None:
        if not self.amount > 0 or self.unit not in get_args(Unit):
            raise ConfigError(f"expected a size above 0 in bytes, share or bpp, got {self.amount} {self.unit}")

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Parse a size with its unit: a percentage, bytes, or bits per parameter. The inverse of `str`.

        Parameters
        ----------
        text : str
            Such as ``"0.5%"``, ``"2MB"`` (powers of 1000) or ``"0.08bpp"``.

        Raises
        ------
        ConfigError
            The text is not a size above 0.

        Examples
        --------
        >>> Size.parse("0.5%").in_bytes(90_900_000, 22_700_000), Size.parse("2MB").in_bytes(1, 1)
        (454500, 2000000)
        >>> Size.parse("0.08bpp").in_bytes(90_900_000, 22_700_000)
        227000
        """
        match = _TEXT.fullmatch(text)
        if not match or not Fraction(match[1]):
            raise ConfigError(f"expected a size such as 0.5%, 2MB or 0.08bpp, got {text!r}")
        amount, unit = Fraction(match[1]), match[2]
        if unit == "%":
            return cls(amount / 100, "share")
        if unit == "bpp":
            return cls(amount, "bpp")
        return cls(amount * 1000 ** _POWERS[unit.removesuffix("B").upper()], "bytes")

    def in_bytes(self, tensor_bytes: int, parameters: int) -> int:
        """Return the size in bytes.

        Parameters
        ----------
        tensor_bytes, parameters : int
            Bytes and number of elements of all tensors of the fine-tune.
        """
        # Bytes of one unit.
        whole = {"bytes": Fraction(1), "share": Fraction(tensor_bytes), "bpp": Fraction(parameters, 8)}
        # An exact fraction, rounded down: a size is an upper bound.
        return int(self.amount * whole[self.unit])

    def __str__(self) -> str:
        """Return the size as text; the inverse of `parse`.

        Examples
        --------
        >>> str(Size.parse("0.5%")), str(Size.parse("2MB"))
        ('0.5%', '2000000B')
        """
        amount = self.amount * 100 if self.unit == "share" else self.amount
        whole, rest = divmod(round(amount * 10**PLACES), 10**PLACES)
        digits = f"{whole}.{rest:0{PLACES}}".rstrip("0").rstrip(".")
        return digits + {"bytes": "B", "share": "%", "bpp": "bpp"}[self.unit]


@dataclass(frozen=True, slots=True)
class Rank:
    """The same rank for every matrix, or its full rank if that is lower.

    Parameters
    ----------
    components : int
        At least 1.

    Raises
    ------
    ConfigError
        The rank is not an integer of at least 1.
    """

    components: int

    def __post_init__(self) -> None:
        # A bool is an Integral, too.
        if not isinstance(self.components, Integral) or isinstance(self.components, bool) or self.components < 1:
            raise ConfigError(f"expected a rank of at least 1, got {self.components!r}")

    def of(self, rows: int, columns: int) -> int:
        """Return the number of components of a matrix of this shape.

        >>> Rank(8).of(100, 200), Rank(8).of(4, 200)
        (8, 4)
        """
        return max(1, min(int(self.components), rows, columns))

    def __str__(self) -> str:
        return f"{self.components}"


@dataclass(frozen=True, slots=True)
class RankShare:
    """The same share of the full rank min(m, n) for every matrix, rounded down, and at least one component.

    Parameters
    ----------
    share : float
        Above 0 and at most 1.

    Raises
    ------
    ConfigError
        The share is out of range.
    """

    share: float

    def __post_init__(self) -> None:
        if not isinstance(self.share, Real) or isinstance(self.share, bool) or not 0 < self.share <= 1:
            raise ConfigError(f"expected a share of the full rank above 0 and at most 1, got {self.share!r}")

    def of(self, rows: int, columns: int) -> int:
        """Return the number of components of a matrix of this shape.

        >>> RankShare(0.29).of(100, 200), RankShare(1.0).of(4, 200)
        (28, 4)
        """
        full = min(rows, columns)
        return max(1, min(int(self.share * full), full))  # Truncated, as in the code of the authors of DTS.

    def __str__(self) -> str:
        return f"{float(self.share)}"


@dataclass(frozen=True, slots=True)
class MaxError:
    """The largest relative error of the decoded delta; the pack becomes as small as this allows.

    The error is the Frobenius norm of what encoding loses, divided by that of the delta, over all tensors that have a
    counterpart in the base, both without what rounding to the fine-tune's dtype alone explains.

    Parameters
    ----------
    error : float
        Between 0 and 1, both excluded.

    Raises
    ------
    ConfigError
        The error is out of range.
    """

    error: float

    def __post_init__(self) -> None:
        if not isinstance(self.error, Real) or isinstance(self.error, bool) or not 0 < self.error < 1:
            raise ConfigError(f"expected an error between 0 and 1, got {self.error!r}")

    def __str__(self) -> str:
        return f"{self.error}"


Target: TypeAlias = Size | Rank | RankShare | MaxError
"""What an encode aims at. A new target is added here; mypy then names every `match` that has to handle it."""
