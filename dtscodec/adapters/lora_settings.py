"""The settings of a LoRA: ranks and scales of its modules, and other settings that give its tensors their meaning."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Ranks and scales of a LoRA.

    Parameters
    ----------
    rank : int
        Rank of modules that no `rank_pattern` matches.
    alpha : float
        Alpha of modules that no `alpha_pattern` matches. The scale is alpha divided by the rank.
    rank_pattern, alpha_pattern : mapping
        Values by regular expression, which matches a module's name or the end of it after a dot. The first match
        counts.
    use_rslora : bool
        Whether alpha is divided by the square root of the rank instead.
    fan_in_fan_out : bool
        Whether layers hold their weights as [in, out], as GPT-2's do.
    base : str, optional
        Name or path of the base in the adapter's configuration.
    modules_to_save : sequence of str
        Ends of names of the modules that the adapter holds whole.
    ensure_weight_tying : bool
        Whether tied layers of the model remain tied.
    token_indices : sequence of int, or mapping of str to it
        Rows of embeddings that the adapter holds, for all of them or by the ends of their modules' names.
    task_type : str, optional
        The task that the model's class is for, such as ``"SEQ_CLS"``.
    model_class : str, optional
        Name of the model's class.

    Raises
    ------
    ValueError
        A rank below 1, an alpha that is not finite, or a pattern that is no regular expression.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    base: str | None = None
    modules_to_save: Sequence[str] = ()
    ensure_weight_tying: bool = False
    token_indices: Sequence[int] | Mapping[str, Sequence[int]] = ()
    task_type: str | None = None
    model_class: str | None = None

    def __post_init__(self) -> None:
        for rank in (self.rank, *self.rank_pattern.values()):
            if rank < 1:
                raise ValueError(f"expected a rank of at least 1, got {rank}")
        for alpha in (self.alpha, *self.alpha_pattern.values()):
            if not math.isfinite(alpha):
                raise ValueError(f"expected a finite alpha, got {alpha}")
        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            _compiled(pattern)

    def rank_of(self, module: str) -> int:
        """Return the rank of a module, given its name."""
        return _first_match(self.rank_pattern, module, self.rank)

    def tokens_of(self, module: str) -> Sequence[int]:
        """Return the rows of an embedding that the adapter holds, given the module's name; empty if there are none."""
        if not isinstance(self.token_indices, Mapping):
            return self.token_indices
        # As PEFT compares them: a key is the end of a name.
        keys = [key for key in self.token_indices if module.endswith(key)]
        return self.token_indices[max(keys, key=len)] if keys else ()

    def scale_of(self, module: str) -> float:
        """Return the scale of a module, given its name: the factor on B A.

        Examples
        --------
        >>> LoraSettings(8, 16, {"q": 2}).scale_of("layers.0.q"), LoraSettings(4, 8, use_rslora=True).scale_of("v")
        (8.0, 4.0)
        """
        rank = self.rank_of(module)
        # alpha / r, or alpha / sqrt(r) in rank-stabilized LoRA.
        return _first_match(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.use_rslora else rank)


def _first_match(pattern: Mapping[str, _Value], module: str, default: _Value) -> _Value:
    return next((value for key, value in pattern.items() if _compiled(key).fullmatch(module)), default)


def _compiled(key: str) -> "re.Pattern[str]":
    try:
        # The whole name, or the end of it after a dot.
        return re.compile(rf"(.*\.)?({key})")
    except re.error as error:
        raise ValueError(f"expected a regular expression, got {key!r:.60}: {error}") from error
