"""Names of tensors -> where in the model they are: depth and module."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NUMBER = re.compile("[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is in its model.

    Parameters
    ----------
    depth : int or None
        The number of its layer, the first number in its name; None outside of layers.
    module : str
        Its name within each layer; outside of layers its full name.
    """

    depth: int | None
    module: str


def places(names: Iterable[str]) -> dict[str, Place]:
    """Where each tensor of a model is.

    Further numbers (experts, say) become ``*``: what differs in them only is one module. The text before the
    layer's number distinguishes modules only if there are several such stacks, as in an encoder and decoder.

    >>> places(["bert.layer.3.attention.query.weight", "pooler.weight"]).values()
    dict_values([Place(depth=3, module='attention.query'), Place(depth=None, module='pooler')])
    >>> places(["encoder.block.0.wi", "decoder.block.0.wi"])["encoder.block.0.wi"]
    Place(depth=0, module='encoder.block.*.wi')
    """
    parsed = {name: _parse(name) for name in names}
    several = len({stack for stack, depth, _ in parsed.values() if depth is not None}) > 1
    return {
        name: Place(depth, f"{stack}.*.{module}" if several and depth is not None else module)
        for name, (stack, depth, module) in parsed.items()
    }


def _parse(name: str) -> tuple[str, int | None, str]:
    """Return the text before the layer's number, the number, and the text after it."""
    parts = name.split(".")
    numbers = [position for position, part in enumerate(parts[:-1]) if _NUMBER.fullmatch(part)]
    if not numbers:
        return "", None, _without_weight(parts)
    first = numbers[0]
    after = ["*" if _NUMBER.fullmatch(part) else part for part in parts[first + 1 :]]
    return ".".join(parts[:first]), int(parts[first]), _without_weight(after)


def _without_weight(parts: list[str]) -> str:
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "weight" else parts)
