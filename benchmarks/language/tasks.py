"""The fine-tunes: texts, learning rate and number of steps of each."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Task:
    """A fine-tune of the base.

    Parameters
    ----------
    name : str
        Its name.
    texts : str
        Its texts; see `benchmarks.language.texts.SOURCES`.
    rate : float
        Peak learning rate of AdamW.
    steps : int
        Number of steps of 8 pieces.
    seed : int
        Seed of the order of pieces.
    lora_rank : int, optional
        Rank of a LoRA on all linear layers, which is merged; None to train all weights.
    """

    name: str
    texts: str
    rate: float
    steps: int
    seed: int = 0
    lora_rank: int | None = None

    def directory(self, cache: Path) -> Path:
        """Return the directory of the model, named after all settings."""
        kind = f"lora{self.lora_rank}" if self.lora_rank else "full"
        return cache / "fine-tunes" / f"{self.name}-{kind}-{self.rate:g}-{self.steps}-{self.seed}"


FULL = (
    Task("style", "style", 5e-5, 60),
    Task("code", "code", 5e-5, 60),
    Task("german", "german", 1e-4, 60),
    Task("exercises", "exercises", 5e-5, 80),
    Task("mild", "documentation", 1e-5, 60),
)
"""Full fine-tunes, over which the tables average."""
LORA = Task("style-lora", "style", 3e-4, 40, lora_rank=16)
"""A LoRA, merged into the base and saved in bfloat16."""
