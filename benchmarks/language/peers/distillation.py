"""BitDelta as published: signs, and one scale a matrix that is distilled on calibration texts.

Source: "BitDelta: Your Fine-Tune May Only Be Worth One Bit", arXiv 2402.10193, FasterDecoding/BitDelta (`train.py`,
`diff.py`). The matrices of attention and MLP become signs times one scale each. Then all scales are trained: mean
squared error between the logits of the fine-tune and of the coded model, AdamW, a cosine, batches of four texts of 128
tokens. The authors train for 100 steps (200 in their README) at a rate of 1e-4; the rate here is in proportion to the
mean of the scales, and swept. Their code trains what it leaves uncoded, embeddings and norms, as well; the paper names
the scales alone, and only they are counted and trained here.

The authors store embeddings in full, which alone is 21 % of the bfloat16 bytes of this model. Here embeddings are
left at the base's, or coded alike.
"""

import random
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.fidelity.peers.bitdelta import code_by_matrix, signs
from benchmarks.fidelity.peers.peer import Coded, Deltas, by_matrix
from benchmarks.language.calibration import Calibration

TEXTS = 4
"""Texts of a step."""
STEPS = 100


def code_distilled(calibration: Calibration, rate: float, deltas: Deltas, seed: int) -> Coded:
    """Code signs and a scale of every matrix, and train the scales.

    Parameters
    ----------
    calibration : Calibration
        Texts and models.
    rate : float
        Peak learning rate by the mean of the scales.
    deltas : Matrices
        The deltas.
    seed : int
        Of the order of the texts.
    """
    coded = by_matrix(deltas, code_by_matrix)
    changed = {name: signs(delta).to(torch.int8) for name, delta in deltas.items() if delta.any()}
    start = {name: float(deltas[name].abs().mean()) for name in changed}
    mean = sum(start.values()) / len(start)
    trained, _ = distil(calibration, changed, start, rate * mean, STEPS, seed)
    return Coded(coded.deltas | {name: trained[name] * sign for name, sign in changed.items()}, coded.size)


def distil(
    calibration: Calibration,
    codes: Mapping[str, Tensor],
    scales: Mapping[str, float],
    rate: float,
    steps: int,
    seed: int = 0,
) -> tuple[dict[str, float], list[float]]:
    """Train scales by the mean squared error of the logits, with AdamW and a cosine.

    Parameters
    ----------
    calibration : Calibration
        Texts and models.
    codes : mapping of str to Tensor
        +1 and -1 by names of parameters, int8.
    scales : mapping of str to float
        Where the scales start.
    rate : float
        Peak learning rate.
    steps : int
        Number of steps of four texts.
    seed : int
        Of the order of the texts.

    Returns
    -------
    scales : dict of str to float
        The trained ones.
    losses : list of float
        Of each step, in squared logits.
    """
    teacher = _Teacher(calibration)
    student = calibration.load_model(calibration.base).requires_grad_(False)
    values = torch.tensor(list(scales.values()), requires_grad=True)
    gradient = torch.zeros_like(values)
    parameters = dict(student.named_parameters())
    for place, (name, scale) in enumerate(scales.items()):
        parameters[name].add_(codes[name], alpha=scale)
        parameters[name].requires_grad_()
        parameters[name].register_post_accumulate_grad_hook(partial(_reduce, gradient, place, codes[name]))
    optimizer = torch.optim.AdamW([values], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for place in _order(len(teacher.inputs), steps, seed):
        inputs = teacher.inputs[place]
        with torch.autocast("cpu", torch.bfloat16):
            logits = student(**inputs).logits
        loss = mse_loss(logits[inputs["attention_mask"].bool()].float(), teacher.logits(place))
        torch.autograd.backward(loss)
        values.grad, before = gradient.clone(), values.detach().clone()
        gradient.zero_()
        optimizer.step()
        schedule.step()
        for name, change in zip(scales, (values.detach() - before).tolist(), strict=True):
            parameters[name].data.add_(codes[name], alpha=change)
        losses.append(loss.item())
    return dict(zip(scales, values.tolist(), strict=True)), losses


class _Teacher:
    """The fine-tune's answers to the calibration texts, kept as its last hidden states: logits would fill the memory.

    Parameters
    ----------
    calibration : Calibration
        Texts and the fine-tune.
    """

    @torch.no_grad()
    def __init__(self, calibration: Calibration) -> None:
        model = calibration.load_model(calibration.fine_tune)
        self._head: Tensor = model.get_output_embeddings().weight.detach()
        self.inputs = [
            {key: tensor[start : start + TEXTS] for key, tensor in batch.items()}
            for batch in calibration.batches
            for start in range(0, len(batch["input_ids"]), TEXTS)
        ]
        self._hidden: list[Tensor] = []
        with torch.autocast("cpu", torch.bfloat16):
            for inputs in self.inputs:
                hidden = model.model(**inputs).last_hidden_state
                self._hidden.append(hidden[inputs["attention_mask"].bool()])

    @torch.no_grad()
    def logits(self, place: int) -> Tensor:
        """Return the logits of the texts of a step, without padding: float32 [tokens, vocabulary]."""
        with torch.autocast("cpu", torch.bfloat16):
            return (self._hidden[place] @ self._head.T).float()


def _reduce(gradient: Tensor, place: int, signs: Tensor, parameter: nn.Parameter) -> None:
    """Turn the gradient of a weight into that of its scale as soon as it is there, and free it."""
    assert parameter.grad is not None
    gradient[place] = (parameter.grad * signs).sum()
    parameter.grad = None


def _order(count: int, steps: int, seed: int) -> Iterator[int]:
    """Yield which of some batches comes in each step: all in random order, then anew."""
    generator = random.Random(seed)
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = generator.sample(range(count), count)
        yield order.pop()
