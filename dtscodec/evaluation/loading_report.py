"""What transformers reports on loading weights -> one error that names the tensors."""

from collections.abc import Mapping
from typing import Any

from dtscodec.errors import CheckpointError, Remedy
from dtscodec.messages import listed


def check_loading_report(report: Mapping[str, Any], class_name: str, location: str, remedy: Remedy) -> None:
    """Raise CheckpointError if a loading report names missing or unexpected tensors, or other shapes.

    Parameters
    ----------
    report : mapping
        As transformers returns it: ``missing_keys`` and ``unexpected_keys`` are names, ``mismatched_keys`` tuples of
        name, shape in the checkpoint, and shape in the model.
    class_name : str
        The class of the model.
    location : str
        Path of the weights, for messages.
    remedy : Remedy
        The remedy.
    """
    problems = _problems(report)
    if problems:
        raise CheckpointError(f"{location}: expected the tensors of a {class_name}, got {problems}", remedy)


def _problems(report: Mapping[str, Any]) -> str:
    """Return the problems in a loading report in words; empty if there are none."""
    shapes = [(name, f"{list(got)} instead of {list(want)}") for name, got, want in report["mismatched_keys"]]
    found = [
        ("no", sorted(map(repr, report["missing_keys"]))),
        ("also", sorted(map(repr, report["unexpected_keys"]))),
        ("", sorted(f"{name!r} of {shape}" for name, shape in shapes)),
    ]
    return ", and ".join(f"{word} {listed(names, 3)}".strip() for word, names in found if names)
