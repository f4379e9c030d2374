"""A pack's numbers, fitted to what its fine-tune does with texts.

Codes of matrices stay as they are. Levels and scales, some thousand numbers, and the elements of biases and norms,
which are quantized again at the end, are moved by gradient descent until the decoded model answers as the fine-tune
does: the loss is KL(fine-tune || decoded) of the predictions and, in every layer, the squared difference of hidden
states by their squares. BitDelta (arXiv 2402.10193) fits its own scales to logits alone; with so few texts hidden
states say far more, and keep the fit from learning the texts by heart.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtscodec.calibration.bias_correction import biased_layers, correct_biases, mean_outputs
from dtscodec.calibration.student import Student
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.decoding.decode import decode
from dtscodec.decoding.recode import recode
from dtscodec.encoding.config import DISTILLED, STEPS
from dtscodec.errors import CheckpointError
from dtscodec.evaluation.architecture import Architecture, read_architecture
from dtscodec.evaluation.checkpoint_names import checkpoint_names
from dtscodec.evaluation.compare_behaviour import kl_terms, model_directory
from dtscodec.evaluation.prepared_samples import prepare_samples
from dtscodec.evaluation.text_batches import SampleBatch
from dtscodec.evaluation.transformers_library import quiet_transformers, transformers_errors
from dtscodec.packs.pack import Pack, PackSource
from dtscodec.storage.paths import as_output, work_folder
from dtscodec.storage.upload import check_new, new_file

HIDDEN = 10.0
"""What the relative squared difference of hidden states counts by that of KL in nats."""
RATE, ELEMENT_RATE = 0.03, 0.1
"""By how much a number moves in the first steps, by its size, and an element, by the root mean square of its
tensor's."""
ELEMENT_STEPS = 0.6
"""Share of the steps in which elements move. The others make up for what quantizing them took."""
BETAS = 0.9, 0.99


@dataclass(frozen=True, slots=True)
class FitLoss:
    """How far a model is from its fine-tune on the texts: mean KL in nats, and mean relative squared difference of
    hidden states.
    """

    kl: float
    hidden: float

    @property
    def total(self) -> float:
        """What is made small."""
        return self.kl + HIDDEN * self.hidden


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a distillation did.

    Parameters
    ----------
    path : Path
        The pack.
    pack_id : str
        64 hex digits.
    pack_bytes : int
    samples, numbers : int
        How many texts or images there were, and how many levels, scales and single elements were fitted.
    before, after : FitLoss
        On these very texts. On others the gain is smaller.
    seconds : float
        Wall time.
    """

    path: Path
    pack_id: str
    pack_bytes: int
    samples: int
    numbers: int
    before: FitLoss
    after: FitLoss
    seconds: float


@dataclass(frozen=True, slots=True)
class TeacherOutput:
    """A batch, and what the fine-tune makes of it."""

    batch: SampleBatch
    logs: Tensor
    hidden: tuple[Tensor, ...]


def fit(
    pack: PackSource,
    fine_tune: Source,
    out: "str | Path",
    base: "Source | Base | None" = None,
    *,
    samples: "str | Path",
    model: "str | Path | None" = None,
    steps: int = STEPS,
    elements: bool = True,
    bias_correction: bool = False,
    batch_size: int = 16,
    device: str = "cpu",
    force: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> FitReport:
    """Fit a pack's levels and scales, biases and norms to its fine-tune's behaviour on texts or images.

    The pack keeps the codes of its matrices, and its size but for the word that it says of it. If the fit does not make
    it better on these texts, it stays as it was. The fine-tune's model and the decoded one are in memory one after the
    other, in float32, with the hidden states of all texts. Needs the package transformers.

    Parameters
    ----------
    pack : path, bytes or Pack
    fine_tune : path or mapping of tensors
        What it was made from.
    out : path
        The new pack.
    base : path, mapping of tensors, or Base, optional
        As for `dtscodec.decode`.
    samples : path
        As for `dtscodec.compare_behaviour`; labels are not used. 64 are enough.
    model : path, optional
        The model directory with configuration, and tokenizer or image processor; by default the fine-tune's own.
    steps : int
        Of gradient descent, each on one batch; 0 to correct biases only.
    elements : bool
        Fit biases and norms element by element, too, rather than levels and scales alone.
    bias_correction : bool
        Before that, add to biases what layers put out too little in the mean.
    batch_size : int
        Texts in a batch.
    device : str
        Where the models run.
    force : bool
        Replace a file that exists.
    progress : callable
        Told 1 for each step.

    Raises
    ------
    SamplesError, CheckpointError, BackendError
        As for `dtscodec.compare_behaviour`; what the fine-tune makes of the texts is NaN or infinite.
    NothingToFitError
        Nothing in the pack is coded, which makes it as good as it gets.
    BaseMismatchError, FormatError
        As for `dtscodec.decode`.
    OutputError
        The output exists, or cannot be written.
    """
    start = time.perf_counter()
    out = as_output(out)
    check_new(out, force)
    architecture = read_architecture(model_directory(model, fine_tune))
    outputs, means = _teacher_outputs(architecture, fine_tune, Path(samples), batch_size, device, bias_correction)
    with decode(pack, base, whole=True) as decoded, quiet_transformers():
        built = architecture.build(decoded, str(decoded.pack.path or "pack")).to(device)
        specs = {entry.name: entry.spec for entry in decoded.pack.index.tensors}
        student = Student(built, decoded, checkpoint_names(architecture, specs, built))
        before = _loss_of(student, outputs)
        if bias_correction:
            correct_biases(student, [output.batch for output in outputs], means)
        _fit(student, outputs, steps, elements, progress)
        after = _loss_of(student, outputs)
        streams = student.streams()
        if not after.total <= before.total:  # What quantizing anew took was more than the fit had gained.
            streams, after = {}, before
        inputs = [decoded.pack.path] if decoded.pack.path else []
        with new_file(out, force, inputs) as file:
            pack_id = recode(decoded.pack, streams, file, work_folder(out), _encoder(decoded.pack))
    counts = sum(output.batch.samples for output in outputs), len(student.numbers) + len(student.elements)
    return FitReport(out, pack_id, out.stat().st_size, *counts, before, after, time.perf_counter() - start)


def _encoder(pack: Pack) -> str:
    text = pack.summary.encoder or ""
    return text if text.endswith(DISTILLED) else f"{text} {DISTILLED}".strip()


def _teacher_outputs(
    architecture: Architecture, fine_tune: Source, texts: Path, size: int, device: str, with_means: bool
) -> tuple[list[TeacherOutput], dict[str, Tensor]]:
    """What the fine-tune makes of all texts and, if wanted, what its layers put out in the mean."""
    given = prepare_samples(architecture, texts)
    with open_checkpoint(fine_tune, whole=True) as fine:
        model, where = architecture.load(fine).to(device), fine.location
    with quiet_transformers(), torch.no_grad():
        batches = [batch.to(device) for batch in given.batches(model, size)]
        outputs = [_teacher_output(model, batch, where) for batch in batches if len(batch.places)]
        means = mean_outputs(model, [output.batch for output in outputs], biased_layers(model)) if with_means else {}
        return outputs, means


def _teacher_output(model: Any, batch: SampleBatch, where: str) -> TeacherOutput:
    """What a fine-tune makes of a batch; CheckpointError if that is not finite."""
    logits, hidden = _answers(model, batch)
    logs = torch.log_softmax(logits, dim=-1)  # NaN for logits of NaN or infinity; -inf rules a choice out.
    if logs.isnan().any() or not all(_unpadded(layer, batch).isfinite().all() for layer in hidden):
        detail = "expected finite answers and hidden states, got NaN or infinity"
        raise CheckpointError(f"{where}: {detail}; are the weights finite?")
    return TeacherOutput(batch, logs, hidden)


def _answers(model: Any, batch: SampleBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits of the predictions, and hidden states of every layer: float32."""
    with transformers_errors(type(model).__name__, "a model that takes these samples and gives its hidden states"):
        found = model(**batch.inputs, return_dict=True, output_hidden_states=True)
        return found.logits.flatten(0, -2)[batch.places], tuple(found.hidden_states)


def _losses(student: Student, output: TeacherOutput) -> tuple[Tensor, Tensor]:
    """KL and the relative squared difference of hidden states, on one batch."""
    logits, hidden = _answers(student.model, output.batch)
    logs = torch.log_softmax(logits, dim=-1)
    pairs = zip(output.hidden, hidden, strict=True)
    layers = [_difference(*(_unpadded(layer, output.batch) for layer in pair)) for pair in pairs]
    return kl_terms(output.logs, logs).sum(-1).mean(), torch.stack(layers).mean()


def _unpadded(hidden: Tensor, batch: SampleBatch) -> Tensor:
    """Hidden states of a layer, 0 for padding, which images have none of."""
    mask = batch.inputs.get("attention_mask")
    return hidden if mask is None else hidden.masked_fill(mask[..., None] == 0, 0.0)


def _difference(true: Tensor, found: Tensor) -> Tensor:
    return (found - true).square().sum() / true.square().sum().clamp(min=torch.finfo(true.dtype).tiny)


@torch.no_grad()
def _loss_of(student: Student, outputs: Sequence[TeacherOutput]) -> FitLoss:
    """Losses on all texts, each batch counting by its predictions."""
    student.rebuild()
    weights = torch.tensor([float(len(output.batch.places)) for output in outputs])
    losses = torch.tensor([[float(part) for part in _losses(student, output)] for output in outputs])
    kl, hidden = (weights @ losses / weights.sum()).tolist()
    return FitLoss(max(kl, 0.0), hidden)  # In this order NaN stays NaN.


def _fit(
    student: Student, outputs: Sequence[TeacherOutput], steps: int, with_elements: bool, progress: Callable[[int], None]
) -> None:
    """Adam on numbers' relative changes, and on elements by their units; its rate falls to zero as half a cosine."""
    free = round(steps * ELEMENT_STEPS) if with_elements else 0
    numbers, elements = student.numbers.clone(), student.elements.clone()
    moved = torch.zeros_like(numbers), torch.zeros_like(elements)
    groups = [{"params": [part], "lr": rate} for part, rate in zip(moved, (RATE, ELEMENT_RATE), strict=True)]
    optimizer = torch.optim.Adam(groups, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, output in enumerate(_in_turn(outputs, steps)):
        kl, hidden = _losses(student, output)
        of_numbers, of_elements = student.gradient(kl + HIDDEN * hidden)
        moved[0].grad, moved[1].grad = numbers * of_numbers, student.units * of_elements
        optimizer.step()
        schedule.step()
        student.numbers.copy_(numbers * (1 + moved[0]))
        if step < free:
            student.elements.copy_(elements + student.units * moved[1])
        if step == free - 1:
            student.settle_elements()
        student.rebuild()
        progress(1)
    student.settle_numbers()


def _in_turn(outputs: Sequence[TeacherOutput], steps: int) -> Iterator[TeacherOutput]:
    """Every batch once before any comes again, in an order that is shuffled each time; always the same one."""
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        if step % len(outputs) == 0:
            order = torch.randperm(len(outputs), generator=generator).tolist()
        yield outputs[order[step % len(outputs)]]
