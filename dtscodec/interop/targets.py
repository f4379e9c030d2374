"""Which tensors of a base an adapter changes: its module names -> tensors of the fine-tune and their counterparts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtscodec.checkpoints.names import NameMatch, Specs, match_names
from dtscodec.errors import EncodeError
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import utf8
from dtscodec.interop.adapter import Adapter
from dtscodec.interop.pairs import Pair


@dataclass(frozen=True, slots=True)
class Targets:
    """The fine-tune that an adapter and a base stand for.

    Parameters
    ----------
    prefix : (str, str)
        As of `Index`.
    bases : mapping
        The base tensor of each of the fine-tune's tensors, names ascending by their UTF-8 bytes; None for new ones.
    transposed : bool
        Whether square weights are [in, out], as all those of the same model are.
    """

    prefix: tuple[str, str]
    bases: Mapping[str, str | None]
    transposed: bool


def find_targets(adapter: Adapter, base: Specs, renames: Sequence[tuple[str, str]] = ()) -> Targets:
    """Match an adapter to a base.

    Parameters
    ----------
    adapter : Adapter
    base : mapping
        Names -> specs.
    renames : sequence of (name, base name)
        Tensors that the base has under another name, such as a tied head.

    Raises
    ------
    EncodeError
        A weight that the adapter changes is not in the base, or of another shape or kind.
    BaseMismatchError
        The base is of another architecture.
    """
    match = _match(adapter, base, renames)
    for module, pair in adapter.pairs.items():
        _check(f"{module}.weight", pair, match.counterpart[f"{module}.weight"], base)
    ours, theirs = match.prefix
    bases: dict[str, str | None] = {}
    for name in base:
        bases[ours + name.removeprefix(theirs) if name.startswith(theirs) else name] = name
    bases |= match.counterpart
    turned = any(
        _is_turned(pair, base[match.counterpart[f"{module}.weight"] or ""].shape)
        for module, pair in adapter.pairs.items()
    )
    return Targets(
        match.prefix,
        dict(sorted(bases.items(), key=lambda item: utf8(item[0]))),
        turned or adapter.settings.fan_in_fan_out,
    )


def _match(adapter: Adapter, base: Specs, renames: Sequence[tuple[str, str]]) -> NameMatch:
    """Match names; dimensions in order of size, since a layer may hold its weight either way."""
    ours = {f"{module}.weight": _by_size(pair.weight_shape(False)) for module, pair in adapter.pairs.items()}
    ours |= {name: _by_size(stored.spec.shape) for name, stored in adapter.whole.items() if name not in ours}
    return match_names(ours, {name: _by_size(spec.shape) for name, spec in base.items()}, renames)


def _by_size(shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec("U8", tuple(sorted(shape)))


def _check(name: str, pair: Pair, counterpart: str | None, base: Specs) -> None:
    if counterpart is None:
        detail = "expected a tensor of this name in the base, got none"
        raise EncodeError(f"{name}: {detail}; if the base has it under another name, say --map {name}=NAME")
    spec = base[counterpart]
    shapes = [pair.weight_shape(transposed) for transposed in (False, True)]
    if spec.shape not in shapes or spec.dtype not in CODED_DTYPES:
        detail = f"expected the adapter's {' or '.join(str([*s]) for s in dict.fromkeys(shapes))} of floats"
        raise EncodeError(f"{name}: {detail}, got {spec} in the base; name the base that the adapter was trained on")


def _is_turned(pair: Pair, shape: tuple[int, ...]) -> bool:
    """Whether a weight can only be held as [in, out]."""
    return shape != pair.weight_shape(False)


def is_transposed(pair: Pair, shape: tuple[int, ...], otherwise: bool) -> bool:
    """Whether a weight is held as [in, out]: as its shape says, or, if it is square, as others of the model are."""
    plain, turned = pair.weight_shape(False), pair.weight_shape(True)
    return otherwise if plain == turned else shape == turned
