"""Memory and time of a fit, against plain training steps on the same batches.

``python -m benchmarks.language.fit_cost``. Each of both runs in a process of its own, on one thread. Memory is
anonymous memory, in RAM or swapped out. Time is that of the processor, which other programs on the machine disturb
least; that of the fit includes loading both models and the losses before and after. Linux only.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import dtscodec
from benchmarks.common.environment import environment
from benchmarks.common.process_usage import run_measured
from benchmarks.language.base import base_directory
from benchmarks.language.finetune import fine_tune
from benchmarks.language.tasks import FULL, Task
from benchmarks.language.texts import load_texts
from dtscodec.calibration.fit_settings import BATCH_TOKENS
from dtscodec.calibration.optimize import shuffled
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.samples import prepare_samples

CACHE = Path(__file__).resolve().parents[2] / ".demo" / "language"
BATCH_SIZE = 16
MODEL_FACTOR, ALLOWANCE = 3, 1_000_000_000
"""The limit of memory: so many times the model in float32, and so many bytes."""
TIME_FACTOR = 1.5
"""The limit of time: so many times that of the plain training steps."""


@dataclass(frozen=True, slots=True)
class Part:
    """Figures of one process.

    Parameters
    ----------
    peak_memory : int
        Peak of anonymous memory, in bytes.
    seconds, processor_seconds : float
        Time from start to end, and time of the processor that its work took.
    """

    peak_memory: int
    seconds: float
    processor_seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both and print a line about each; see ``--help``."""
    options = _parse(argv)
    if options.part:
        _run_part(options)
        return 0
    task, cache = _task(options.task), options.cache.resolve()
    directory = fine_tune(task, cache)
    with tempfile.TemporaryDirectory() as folder:
        _write_inputs(task, cache, directory, Path(folder), options)
        parts = {name: _measure(name, Path(folder), options) for name in options.parts}
    parameters = sum(spec.elements for spec in read_specs(directory).values())
    limit = MODEL_FACTOR * 4 * parameters + ALLOWANCE
    result = {"task": task.name, "steps": options.steps, "texts": options.texts, "memory_limit": limit}
    result |= {name: asdict(part) for name, part in parts.items()} | {"environment": environment()}
    print(json.dumps(result))
    for name, part in parts.items():
        print(f"{name}: {part.peak_memory / 1e9:.2f} GB, {part.processor_seconds:.0f} s of {part.seconds:.0f} s")
    is_kept = "fit" not in parts or parts["fit"].peak_memory <= limit
    print(f"memory of the fit: at most {limit / 1e9:.2f} GB expected")
    if len(parts) == 2:
        ratio = parts["fit"].processor_seconds / parts["train"].processor_seconds
        print(f"the fit takes {ratio:.2f} times as long as the training steps, at most {TIME_FACTOR} expected")
        is_kept = is_kept and ratio <= TIME_FACTOR
    return 0 if is_kept else 1


def read_specs(directory: Path) -> dict[str, Any]:
    """Return the specs of a model directory's tensors by name."""
    from dtscodec.checkpoints.open import open_checkpoint
    from dtscodec.storage.open_file import BY_RANGE

    with open_checkpoint(directory, BY_RANGE) as checkpoint:
        return dict(checkpoint.specs)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory and time of a fit, against plain training steps.")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of downloads and models")
    parser.add_argument("--task", default=FULL[0].name)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--size", default="1.74%", help="size of the pack (default: that of the preset paper)")
    parser.add_argument("--pack", type=Path, help="a pack to fit, instead of one that is encoded now")
    parser.add_argument("--parts", nargs="*", default=["fit", "train"], choices=["fit", "train"])
    parser.add_argument("--part", choices=["fit", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _task(name: str) -> Task:
    return next(task for task in FULL if task.name == name)


def _write_inputs(task: Task, cache: Path, directory: Path, folder: Path, options: argparse.Namespace) -> None:
    """Write the texts, and the pack unless one is given."""
    from transformers import AutoTokenizer

    pieces = load_texts(task.texts, cache, AutoTokenizer.from_pretrained(directory))
    # Calibration texts first. There may be fewer than are asked for.
    texts = [*pieces.calibration, *pieces.train][: options.texts]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pack = options.pack
    if pack is None:
        pack = folder / "pack.safetensors"
        config = dtscodec.EncodeConfig(dtscodec.Size.parse(options.size)).for_fitting()
        dtscodec.encode(base_directory(cache), directory, pack, config)
    paths = {"pack": str(pack.resolve()), "fine_tune": str(directory), "base": str(base_directory(cache))}
    (folder / "paths.json").write_text(json.dumps(paths))


def _measure(name: str, folder: Path, options: argparse.Namespace) -> Part:
    arguments = ["--part", name, "--folder", str(folder), "--steps", str(options.steps)]
    usage = run_measured(arguments, folder, module="benchmarks.language.fit_cost")
    spent = json.loads((folder / f"{name}.json").read_text())
    return Part(usage.peak_memory, usage.seconds, spent)


def _run_part(options: argparse.Namespace) -> None:
    """Run one of both in this process, and write how much time of the processor it took."""
    torch.set_num_threads(1)
    paths = json.loads((options.folder / "paths.json").read_text())
    start = time.process_time()
    texts = options.folder / "texts.jsonl"
    if options.part == "fit":
        out = options.folder / "fitted.safetensors"
        report = dtscodec.fit(paths["pack"], paths["fine_tune"], out, paths["base"], samples=texts, steps=options.steps)
        print(report.before, report.after, flush=True)
    else:
        _train(Path(paths["fine_tune"]), texts, options.steps)
    (options.folder / f"{options.part}.json").write_text(json.dumps(time.process_time() - start))


def _train(directory: Path, texts: Path, steps: int) -> None:
    """Make training steps as in `benchmarks.language.finetune`: fp32 weights, AdamW, bf16 matrix products."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    prepared = prepare_samples(read_architecture(directory), texts)
    batches = list(prepared.batches(model, BATCH_SIZE, BATCH_TOKENS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    for batch in shuffled(batches, steps):
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch.inputs, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    raise SystemExit(main())
