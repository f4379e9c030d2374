"""How large a pack may be: as users say it, and in bytes."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

Unit = Literal["bytes", "share", "bpp"]

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
PLACES = 18
"""Digits after the point that a size may have."""
_TEXT = re.compile(r"(\d{0,18}\.?\d{1,18})\s*(%|bpp|[kKMGT]?B?)")


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a pack file on disk that is not to be exceeded.

    Parameters
    ----------
    amount : Fraction
        Above 0.
    unit : {"bytes", "share", "bpp"}
        Bytes; a share of the bytes of the fine-tune's tensors as they are stored; or bits for each of its parameters.

    Raises
    ------
    ValueError
        A value out of range.
    """

    amount: Fraction
    unit: Unit

    def __post_init__(self) -> None:
        if not self.amount > 0 or self.unit not in get_args(Unit):
            raise ValueError(f"expected a size above 0 in bytes, share or bpp, got {self.amount} {self.unit}")

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read a size as the command line takes it.

        >>> Size.parse("0.5%").in_bytes(90_900_000, 22_700_000), Size.parse("2MB").in_bytes(1, 1)
        (454500, 2000000)
        >>> Size.parse("0.08bpp").in_bytes(90_900_000, 22_700_000)
        227000
        """
        match = _TEXT.fullmatch(text)
        if not match or not Fraction(match[1]):
            raise ValueError(f"expected a size such as 0.5%, 2MB or 0.08bpp, got {text!r}")
        amount, unit = Fraction(match[1]), match[2]
        if unit == "%":
            return cls(amount / 100, "share")
        if unit == "bpp":
            return cls(amount, "bpp")
        return cls(amount * 1000 ** _POWERS[unit.removesuffix("B").upper()], "bytes")

    def in_bytes(self, tensor_bytes: int, parameters: int) -> int:
        """Bytes of the largest file, for a fine-tune of so many bytes and parameters."""
        whole = {"bytes": Fraction(1), "share": Fraction(tensor_bytes), "bpp": Fraction(parameters, 8)}
        return int(self.amount * whole[self.unit])

    def __str__(self) -> str:
        """As `parse` reads it.

        >>> str(Size.parse("0.5%")), str(Size.parse("2MB"))
        ('0.5%', '2000000B')
        """
        amount = self.amount * 100 if self.unit == "share" else self.amount
        whole, rest = divmod(round(amount * 10**PLACES), 10**PLACES)
        digits = f"{whole}.{rest:0{PLACES}}".rstrip("0").rstrip(".")
        return digits + {"bytes": "B", "share": "%", "bpp": "bpp"}[self.unit]
