"""Peak memory of a fit that has one layer at a time in memory: ``python -m benchmarks.language.offload_memory``.

The model is a Llama of 1.1 billion parameters, made by script, with a fine-tune and its pack, which stay in the folder
for the next run. Measured is anonymous memory, in RAM or swapped out: what is read from a mapped file costs nothing
that the system cannot take back. Linux only.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.environment import environment
from benchmarks.common.process_usage import Usage, run_measured
from benchmarks.speed.synthetic_checkpoints import VOCABULARY, Shape, write_pair

RECORD = Path(__file__).with_suffix(".json")
SHAPE = Shape(width=2048, inner=5632, layers=19)
HEADS = 32
LIMIT = 3_000_000_000
"""The most that the fit may take, in bytes."""
TEXTS, TEXT_TOKENS = 64, 128
PACK = "fine.dts.safetensors"


def main(argv: Sequence[str] | None = None) -> int:
    """Make the model, fit its pack, and print what that took; 1 if it is too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language.offload_memory", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the model, 4.5 GB, which is made if missing")
    parser.add_argument("--steps", type=int, default=20, help="of the fit (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    options = parser.parse_args(argv)
    make_model(options.folder)
    usage = fit(options.folder, options.steps)
    result = {
        **environment(),
        "parameters": SHAPE.parameters(),
        "texts": TEXTS,
        "tokens": TEXT_TOKENS,
        "steps": options.steps,
        "peak": usage.peak_memory,
        "seconds": round(usage.seconds, 1),
        "read": usage.moved.read,
    }
    print(
        f"{SHAPE.parameters() / 1e9:.2f} B parameters, {options.steps} steps: {usage.peak_memory / 1e9:.2f} GB of "
        f"anonymous memory (limit {LIMIT / 1e9:g} GB), {usage.seconds:.0f} s"
    )
    if options.record:
        RECORD.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if usage.peak_memory <= LIMIT else 1


def make_model(folder: Path) -> None:
    """Make base, fine-tune, pack and texts in a folder, unless they exist.

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
        # An encode that was killed goes on.
        print("encode", run_measured(["encode", "base", "fine", "-o", PACK, "--size", "0.5%"], folder), flush=True)


def fit(folder: Path, steps: int) -> Usage:
    """Fit the pack, and return what that took.

    Parameters
    ----------
    folder : Path
        Of the model.
    steps : int
        Steps of the fit.
    """
    arguments = ["fit", PACK, "fine", "--base", "base", "--samples", "texts.txt", "-o", "fitted.dts.safetensors"]
    arguments += ["--steps", str(steps), "--offload", "--force"]
    return run_measured(arguments, folder, report=lambda usage: print(usage, flush=True))


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
