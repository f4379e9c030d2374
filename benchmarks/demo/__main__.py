"""Command line of the demo: ``python -m benchmarks.demo``."""

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common.environment import environment
from benchmarks.demo import commands, data, evaluate, report
from benchmarks.demo.finetune import Settings, base_directory, finetune

HERE = Path(__file__).resolve().parent
CACHE = commands.ROOT / ".demo"
BASE = "base"


class Names(NamedTuple):
    """Arguments of the commands, relative to the folder they run in."""

    finetune: str
    pack: str
    decoded: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and print its result; see ``--help``."""
    options = _parse(argv)
    # The commands run as child processes, and tokenizers warns where it meets a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    settings = Settings(options.domain, options.texts, options.epochs, options.seed)
    result = run(settings, options.test, options.cache.resolve())
    print(f"\n{report.table(result)}")
    report.write(result, options.cache / "result.json")
    if options.record:
        report.write(result, HERE / "result.json")
    return 0


def run(settings: Settings, n_test: int, cache: Path) -> dict[str, Any]:
    """Fine-tune, encode, decode and measure; return the result that ``result.json`` holds."""
    base, folder = base_directory(), cache / settings.key
    names = Names(settings.domain, f"{settings.domain}.dts.safetensors", "decoded")
    test = data.load(settings.domain, cache).test[:n_test]
    if not (folder / names.finetune).exists():
        print(f"fine-tuning on {settings.n_train:,} texts, once; kept in {_shown(folder)}", flush=True)
    finetune(base, folder / names.finetune, settings, cache)
    _clear(folder, base, names)
    seconds = _commands(folder, names)
    return {
        **environment(),
        "settings": dataclasses.asdict(settings),
        "n_test": len(test),
        "seconds": {step: round(value, 2) for step, value in seconds.items()},
        **_sizes(folder, names),
        **_fidelity(folder, names, test, settings.max_length),
        "weights": _weights(folder, names),
    }


def _clear(folder: Path, base: Path, names: Names) -> None:
    """Remove what the last run made, and link the base under a short name, as virtual environments move."""
    (folder / names.pack).unlink(missing_ok=True)
    shutil.rmtree(folder / names.decoded, ignore_errors=True)
    (folder / BASE).unlink(missing_ok=True)
    (folder / BASE).symlink_to(base, target_is_directory=True)


def _commands(folder: Path, names: Names) -> dict[str, float]:
    """Run the commands that a user would, and time the two that do the work."""
    print(f"$ cd {_shown(folder)}")
    encode = ["encode", BASE, names.finetune, "-o", names.pack]
    decode = ["decode", names.pack, "--base", BASE, "-o", names.decoded]
    encoding = commands.show(encode, folder)
    commands.show(["info", names.pack], folder)
    return {"encode": encoding, "decode": commands.show(decode, folder)}


def _sizes(folder: Path, names: Names) -> dict[str, Any]:
    """Bytes on disk; the checkpoint is the weights alone, the pack all there is."""
    checkpoint = (folder / names.finetune / "model.safetensors").stat().st_size
    pack = (folder / names.pack).stat().st_size
    return {"bytes": {"checkpoint": checkpoint, "pack": pack}, "share": pack / checkpoint}


def _weights(folder: Path, names: Names) -> dict[str, Any]:
    """Totals of ``dtscodec compare``, whose table has a line per tensor."""
    compared = commands.read(["compare", names.pack, names.finetune, "--base", BASE], folder)
    return {name: value for name, value in compared.items() if name != "tensors"}


def _fidelity(folder: Path, names: Names, test: Sequence[data.Example], max_length: int) -> dict[str, Any]:
    labels = evaluate.labels_of(test)
    tuned = evaluate.directory_logits(folder / names.finetune, test, max_length)
    logits = {
        "base": evaluate.base_logits(folder / BASE, folder / names.finetune, test, max_length),
        "finetune": tuned,
        "decoded": evaluate.directory_logits(folder / names.decoded, test, max_length),
    }
    fidelity = {model: evaluate.fidelity(value, tuned, labels)._asdict() for model, value in logits.items()}
    return {"fidelity": fidelity, "majority": evaluate.majority(labels)}


def _shown(path: Path) -> str:
    """Path as short as it can be typed from where we are."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo",
        description="Fine-tune a small model, pack it, unpack it, and measure what that costs and keeps.",
    )
    parser.add_argument("--domain", choices=data.TASKS, default=defaults.domain)
    parser.add_argument("--texts", type=int, default=defaults.n_train, metavar="N", help="texts to train on")
    parser.add_argument("--epochs", type=int, default=defaults.epochs, metavar="E")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--test", type=int, default=data.TEST_SIZE, metavar="N", help="texts to test on")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help="folder for what is made")
    parser.add_argument("--record", action="store_true", help="write what the README shows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
