"""Checks of method options, for constructors."""

import math

from dtscodec.errors import ConfigError


def check_number(name: str, value: float, least: float = -math.inf) -> None:
    """Raise ConfigError unless a value is a finite number, and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name}: expected a finite number, got {value!r}")
    if value < least:
        raise ConfigError(f"{name}: expected at least {least}, got {value}")


def check_share(name: str, value: float) -> None:
    """Raise ConfigError unless a value is above 0 and at most 1."""
    check_number(name, value)
    if not 0 < value <= 1:
        raise ConfigError(f"{name}: expected a share above 0 and up to 1, got {value}")


def check_word(name: str, value: str, words: tuple[str, ...]) -> None:
    """Raise ConfigError unless a value is one of `words`."""
    if value not in words:
        raise ConfigError(f"{name}: expected {' or '.join(words)}, got {value!r}")
