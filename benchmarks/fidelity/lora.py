"""A fine-tune by LoRA (`peft`) of rank 16 on query and value, merged into plain weights in float32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.demo.data import classes, load
from benchmarks.demo.finetune import Settings, initial_model, reproducibly, save, tokenizer, train

RANK = 16
LEARNING_RATE = 1e-3


def finetune_lora(base: Path, out: Path, settings: Settings, cache: Path) -> None:
    """Make the model directory `out`; a directory already there is taken to be finished and kept."""
    if out.exists():
        return
    from peft import LoraConfig, get_peft_model

    settings = replace(settings, learning_rate=LEARNING_RATE)
    examples = load(settings.domain, cache).train[: settings.n_train]
    with reproducibly(settings.seed):
        targets = LoraConfig(
            r=RANK,
            lora_alpha=RANK,
            target_modules=["query", "value"],
            modules_to_save=["classifier"],
            task_type="SEQ_CLS",
        )
        model: Any = get_peft_model(initial_model(base, classes(settings.domain)), targets)
        train(model, tokenizer(base, settings.max_length), examples, settings)
        merged = model.merge_and_unload()
    save(merged, base, out)
