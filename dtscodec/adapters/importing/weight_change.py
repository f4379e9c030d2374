"""The change of one tensor of the model by an adapter, and the equality of two such changes."""

from dataclasses import dataclass

from dtscodec.adapters.lora_adapter import LoraAdapter, TokenRows
from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.linalg.factored_matrix import Factored

EQUAL = 1e-3
"""Largest distance of two deltas that count as equal, relative to their norm: the rounding of a pair to float16."""


@dataclass(frozen=True, slots=True)
class WeightChange:
    """The change of one tensor by an adapter: it replaces the tensor, adds a product to it, then replaces some rows.

    Parameters
    ----------
    whole : StoredTensor or None
        The tensor that replaces the base's, or that the product is added to; None for the base's own.
    pair : LoraPair or None
        A and B.
    scale : float
        Factor on B A.
    tokens : TokenRows or None
        Rows that replace those of some tokens.
    bias : StoredTensor or None
        A bias of B, which is added with the factor `scale`.
    """

    whole: StoredTensor | None = None
    pair: LoraPair | None = None
    scale: float = 1.0
    tokens: TokenRows | None = None
    bias: StoredTensor | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the changed tensor, of a matrix perhaps reversed; None if the change does not determine it."""
        if (known := self.whole or self.bias) is not None:
            return known.spec.shape
        return None if self.pair is None else self.pair.weight_shape(False)

    @property
    def is_sum(self) -> bool:
        """True if a product is added to the base's tensor, and the tensor is not changed otherwise."""
        return self.pair is not None and self.whole is None and self.tokens is None

    def equals(self, other: "WeightChange") -> bool:
        """Return whether another change makes the same tensor of a tied one."""
        if (self.pair is None) != (other.pair is None) or (self.tokens is None) != (other.tokens is None):
            return False
        # A copy of the tensor before the training is not always saved.
        if self.pair is None and self.tokens is None and (self.whole is None or other.whole is None):
            return self.whole is other.whole
        return (
            _is_equal(self.whole, other.whole)
            and _has_equal_rows(self.tokens, other.tokens)
            and _has_equal_deltas(self._delta(), other._delta())
        )

    def _delta(self) -> Factored | None:
        return None if self.pair is None else self.pair.to_delta(self.scale, False)


def _is_equal(one: StoredTensor | None, other: StoredTensor | None) -> bool:
    return one is None or other is None or (one.spec == other.spec and bytes(one.data) == bytes(other.data))


def _has_equal_rows(one: TokenRows | None, other: TokenRows | None) -> bool:
    return one is None or other is None or (one.indices == other.indices and _is_equal(one.rows, other.rows))


def _has_equal_deltas(one: Factored | None, other: Factored | None) -> bool:
    if one is None or other is None:
        return True
    return one.shape == other.shape and one.minus(other).square() <= EQUAL**2 * one.square()


def changes_of(adapter: LoraAdapter) -> dict[str, WeightChange]:
    """Return the adapter's change of each tensor that it changes, by the tensor's name in the model.

    Parameters
    ----------
    adapter : LoraAdapter
        The adapter.
    """
    pairs = {f"{module}.weight": module for module in adapter.pairs}
    modules = pairs | {name: name.removesuffix(".bias") for name in adapter.biases}
    changes = {}
    for name in sorted({*modules, *adapter.whole, *adapter.tokens}):
        module = modules.get(name)
        changes[name] = WeightChange(
            adapter.whole.get(name, adapter.originals.get(name)),
            adapter.pairs[pairs[name]] if name in pairs else None,
            1.0 if module is None else adapter.settings.scale_of(module),
            adapter.tokens.get(name),
            adapter.biases.get(name),
        )
    return changes
