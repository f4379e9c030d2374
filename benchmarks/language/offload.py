"""Fits that have one layer of each model in memory at a time: ``python -m benchmarks.language.offload``.

On the base of this benchmark the pack, its held-out KL, memory and time are compared with those of whole models. A
Llama of 1.1 billion parameters, made by script, with a fine-tune and its pack, is fitted offloaded only. Its files stay
in the cache. Measured is anonymous memory, in RAM or swapped out: what is read from a mapped file costs nothing that
the system cannot take back. Linux only.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import dtscodec
from benchmarks.common.environment import environment
from benchmarks.common.markdown import markdown_table
from benchmarks.common.process_usage import run_measured
from benchmarks.language.base import base_directory
from benchmarks.language.calibration import Calibration
from benchmarks.language.judge import Judge
from benchmarks.language.tasks import FULL
from benchmarks.speed.synthetic_checkpoints import VOCABULARY, Shape, write_pair

RECORD = Path(__file__).with_suffix(".json")
SHAPE = Shape(width=2048, inner=5632, layers=19)
HEADS = 32
LIMIT = 3_000_000_000
"""The most that a fit of the large model may take, in bytes."""
TEXTS, TEXT_TOKENS = 8, 128
"""Calibration texts of the large model: one batch of 1,024 tokens."""
SIZE = "0.5%"
PACK, FITTED = "fine.dts.safetensors", "fitted.dts.safetensors"
SMALL = "SmolLM2-135M"
HELD_OUT = 2048
"""Held-out tokens."""


class Row(NamedTuple):
    """A fit: peak memory in bytes, seconds, bytes read, and what came out."""

    model: str
    offloaded: bool
    steps: int
    peak: int
    seconds: float
    read: int
    pack_id: str
    kl: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the fits, and print what they took; 1 if packs differ or the large model took too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language.offload")
    parser.add_argument("--cache", type=Path, required=True, help="downloads and models; see benchmarks.language")
    parser.add_argument("--large", type=Path, help="folder of the large model, 4.5 GB (default: in the cache)")
    parser.add_argument("--steps", type=int, default=20, help="of each fit (default: %(default)s)")
    parser.add_argument("--only", choices=["small", "large"], help="fit one of the models only")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    options = parser.parse_args(argv)
    rows: list[Row] = []
    if options.only != "large":
        rows += fit_small(options.cache.resolve(), options.steps)
    if options.only != "small":
        folder = (options.large or options.cache / "llama-1.1b").resolve()
        make_large(folder)
        rows.append(fit(folder, f"Llama of {SHAPE.parameters() / 1e9:.2f} B", options.steps, offloaded=True))
    print(table(rows))
    if options.record:
        document = {**environment(), "limit": LIMIT, "rows": [row._asdict() for row in rows]}
        RECORD.write_text(json.dumps(document, indent=2) + "\n")
    same = len({row.pack_id for row in rows if row.model == SMALL and row.steps}) <= 1
    return 0 if same and all(row.peak <= LIMIT for row in rows if row.offloaded) else 1


def fit_small(cache: Path, steps: int) -> list[Row]:
    """Fit a pack of the benchmark's first task with whole models and offloaded; the first row is the pack before.

    Parameters
    ----------
    cache : Path
        Folder of downloads and models.
    steps : int
        Steps of both fits.
    """
    task = FULL[0]
    calibration, judge = Calibration(task, cache), Judge(task, cache, HELD_OUT)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "base").symlink_to(base_directory(cache))
        (folder / "fine").symlink_to(calibration.fine_tune)
        (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in calibration.texts))
        usage = run_measured(["encode", "base", "fine", "-o", PACK, "--size", SIZE], folder)
        rows = [Row(SMALL, False, 0, usage.peak_memory, usage.seconds, usage.moved.read, *_judged(folder, PACK, judge))]
        for offloaded in (False, True):
            row = fit(folder, SMALL, steps, offloaded)
            rows.append(row._replace(kl=_judged(folder, FITTED, judge)[1]))
            print(row, flush=True)
    return rows


def _judged(folder: Path, pack: str, judge: Judge) -> tuple[str, float]:
    """Return the id of a pack, and its KL on held-out texts."""
    with dtscodec.decode(folder / pack, folder / "base") as decoded:
        return decoded.pack.id, judge.figures(decoded).kl


def make_large(folder: Path) -> None:
    """Make base, fine-tune, pack and texts of the large model in a folder, unless they exist.

    Parameters
    ----------
    folder : Path
        The folder; its parent must exist.
    """
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            write_pair(Path(made), SHAPE)
            for kind in ("base", "fine"):
                _write_configuration(Path(made, kind))
            _write_texts(Path(made, "texts.txt"))
            shutil.move(made, folder)
            Path(made).mkdir()  # For the context to remove.
    if not (folder / PACK).exists():
        # If it was killed before, it goes on.
        run_measured(["encode", "base", "fine", "-o", PACK, "--size", SIZE], folder)


def fit(folder: Path, model: str, steps: int, offloaded: bool) -> Row:
    """Fit the pack in a folder, and return what that took.

    Parameters
    ----------
    folder : Path
        Of base, fine-tune, pack and texts.
    model : str
        Name of the model.
    steps : int
        Steps of the fit.
    offloaded : bool
        Whether the models are offloaded.
    """
    (texts,) = folder.glob("texts.*")
    arguments = ["fit", PACK, "fine", "--base", "base", "--samples", texts.name, "-o", FITTED, "--force"]
    how = "--offload" if offloaded else "--no-offload"
    usage = run_measured(
        [*arguments, "--steps", str(steps), how], folder, report=lambda so_far: print(so_far, flush=True)
    )
    with dtscodec.open(folder / FITTED) as pack:
        return Row(model, offloaded, steps, usage.peak_memory, usage.seconds, usage.moved.read, pack.id, None)


def table(rows: Sequence[Row]) -> str:
    """Return the fits as a table."""

    def cells(row: Row) -> list[str]:
        how = "offloaded" if row.offloaded else "whole" if row.steps else "data-free"
        kl = "" if row.kl is None else f"{row.kl:.4f}"
        return [
            row.model,
            how,
            str(row.steps),
            f"{row.peak / 1e9:.2f} GB",
            f"{row.seconds:.0f} s",
            kl,
            row.pack_id[:12],
        ]

    return markdown_table(["model", "fit", "steps", "peak", "time", "held-out KL", "pack id"], map(cells, rows))


def _write_configuration(directory: Path) -> None:
    """Write configuration and a tokenizer of the words w0, w1 and so on into a directory of weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=SHAPE.width,
        intermediate_size=SHAPE.inner,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    ).save_pretrained(directory)
    words = {"<end>": 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<end>", eos_token="<end>", pad_token="<end>")  # type: ignore[no-untyped-call]
    fast.save_pretrained(directory)


def _write_texts(path: Path) -> None:
    generator = random.Random(0)
    lines = (" ".join(f"w{generator.randrange(1, VOCABULARY)}" for _ in range(TEXT_TOKENS)) for _ in range(TEXTS))
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
