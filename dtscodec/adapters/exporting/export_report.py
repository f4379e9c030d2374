"""The report on an adapter that was exported from a pack."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtscodec.adapters.exporting.left_out_changes import LeftOut
from dtscodec.evaluation.compare_behaviour import Behaviour


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An adapter that was exported from a pack.

    Parameters
    ----------
    path : Path
        The adapter's directory.
    model : str
        Class name of the model that uses it.
    ranks : mapping of str to int
        Rank of each layer that it changes.
    saved : tuple of str
        Modules that it stores as a whole (`modules_to_save`).
    tied : tuple of str
        Layers that it changes and that share a weight. Each has a LoRA of its own, so the model computes the right
        outputs, but PEFT's `merge_and_unload` adds the delta to the shared weight more than once.
    adapter_bytes, pack_bytes : int
        Sizes on disk of the adapter's tensors and of the pack.
    cut_off : float
        Share of the delta's squared norm that truncation to the largest rank removes.
    left_out : tuple of LeftOut
        Changed tensors that the adapter does not carry, the largest shares first.
    vllm_rank : int or None
        The smallest `max_lora_rank` with which vLLM loads the adapter; None if vLLM does not load it.
    vllm_problems : tuple of str
        The reasons why vLLM does not load it.
    effect : Behaviour or None
        Predictions of base + adapter against the decoded model's, as `dtscodec.compare_behaviour` reports those of a
        decoded model against its fine-tune's; None if no samples were given.
    """

    path: Path
    model: str
    ranks: Mapping[str, int]
    saved: tuple[str, ...]
    tied: tuple[str, ...]
    adapter_bytes: int
    pack_bytes: int
    cut_off: float
    left_out: tuple[LeftOut, ...]
    vllm_rank: int | None
    vllm_problems: tuple[str, ...]
    effect: Behaviour | None = None

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(self.ranks.values())

    @property
    def left_out_share(self) -> float:
        """Share of the delta's squared norm in tensors that are left out; unknown shares count as zero."""
        return sum(left.share or 0.0 for left in self.left_out)
