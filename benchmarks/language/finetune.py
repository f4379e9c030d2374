"""Fine-tune the base on the texts of a task, as ordinary scripts do: fp32 weights, AdamW, bf16 matrix products."""

import math
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.language.base import base_directory
from benchmarks.language.tasks import Task
from benchmarks.language.texts import load_texts

BATCH = 8
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; it falls to 0 with a cosine after them."""


def fine_tune(task: Task, cache: Path) -> Path:
    """Return the directory of a fine-tune: configuration, tokenizer and bfloat16 weights. It is trained if missing.

    Parameters
    ----------
    task : Task
        The fine-tune.
    cache : Path
        Folder of downloads and models.
    """
    directory = task.directory(cache)
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
            _train(task, cache, Path(folder, "model"))
            Path(folder, "model").rename(directory)
    return directory


def _train(task: Task, cache: Path, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = base_directory(cache)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(task.seed)
    if task.lora_rank:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=task.lora_rank, lora_alpha=2 * task.lora_rank, target_modules="all-linear")
        model = get_peft_model(model, config)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=task.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, task.steps))
    pieces, start = load_texts(task.texts, cache, tokenizer).train, time.perf_counter()
    for step, inputs in enumerate(batches(pieces, tokenizer, task.steps, task.seed), start=1):
        loss = take_step(model, inputs, optimizer, schedule)
        if step % 10 == 0:
            seconds = time.perf_counter() - start
            print(f"{task.name}: step {step} of {task.steps}, loss {loss:.3f}, {seconds:.0f} s", flush=True)
    if task.lora_rank:
        model = model.merge_and_unload()
    model.to(torch.bfloat16).save_pretrained(out)
    # Afresh: one that was in use also saves how it padded and truncated last.
    AutoTokenizer.from_pretrained(base).save_pretrained(out)


def take_step(
    model: Any,
    inputs: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Take a step of training, and return the loss before it."""
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return float(loss.detach())


def rate_factor(step: int, steps: int) -> float:
    """Return the learning rate of a step, relative to the peak."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def batches(pieces: Any, tokenizer: Any, steps: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield inputs and labels of each step; every piece ends with the token for the end of a text."""
    generator = random.Random(seed)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < BATCH:
            order = list(range(len(pieces)))
            generator.shuffle(order)
        texts = [pieces[order.pop()] + tokenizer.eos_token for _ in range(BATCH)]
        inputs = dict(tokenizer(texts, return_tensors="pt", padding=True, padding_side="right"))
        # Padding and the end of a text are the same token here: the mask tells them apart.
        yield {**inputs, "labels": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)}
