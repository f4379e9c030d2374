"""The type of callbacks that count progress."""

from collections.abc import Callable
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[int], None]
"""Called with the amount of work done since the last call: bytes, samples or steps, as the callee documents."""


def no_progress(count: int) -> None:
    """Do nothing; the default of `progress` arguments."""
