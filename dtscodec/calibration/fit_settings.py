"""Settings of a fit."""

from dataclasses import dataclass, field

STEPS = 100
"""Default number of gradient steps."""
BATCH_TOKENS = 1024
"""Default for the largest number of tokens in a batch of texts."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Settings of a fit: arguments of `dtscodec.fit`, by their names there. Their `repr` names a step of the journal.

    Parameters
    ----------
    samples : str
        A file of texts or a folder of images.
    model : str or None
        The directory of configuration, and tokenizer or image processor; None for the fine-tune's own.
    steps : int
        Number of gradient steps.
    codes : bool
        Fit the codes of matrices, too.
    elements : bool
        Fit biases and norms element by element, too.
    bias_correction : bool
        First correct biases.
    batch_size : int
        Largest number of samples in a batch.
    batch_tokens : int
        Largest number of tokens in a batch of texts.
    device : str
        The device that the models run on.
    offload : bool or None
        Whether one layer of each model is in memory at a time. It does not change the result, so that a journal that
        was begun without it is resumed.
    """

    samples: str
    model: str | None
    steps: int
    codes: bool
    elements: bool
    bias_correction: bool
    batch_size: int
    batch_tokens: int
    device: str
    offload: bool | None = field(repr=False)
