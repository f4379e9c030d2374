"""Promises of ``encode --max-kl``, checked on the test texts: ``python -m benchmarks.language.promised_packs``.

Five fine-tunes, and as bounds 1/10, 1/50 and 1/200 of the base's own KL. Each promise is made from the calibration
texts alone, and judged on the test texts, which it has not seen. With ``--sweep TASK`` packs are also fitted to the
same part of the calibration texts, in sizes that fall in steps of 1.15 until one misses the bound on the test texts.
That tells by how much a promised pack is larger than need be. Fits are short, so that all promises take hours rather
than days; longer ones give smaller packs. Everything is stored in the cache: a run that is interrupted goes on.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import dtscodec
from benchmarks.language.base import base_directory
from benchmarks.language.finetune import fine_tune
from benchmarks.language.judge import Judge
from benchmarks.language.tasks import FULL, Task
from benchmarks.language.texts import load_texts, write_samples
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.samples import prepare_samples
from dtscodec.promises.splits import split_samples

PARTS = 10, 50, 200
"""Bounds are these parts of the base's own KL."""
TEXTS = 160
"""Most calibration texts of a promise."""
STEPS = 20
"""Gradient steps of each fit."""
TOKENS = 8192
"""Test tokens that a promise is judged on."""
STEP = 1.15
"""Ratio of neighbouring sizes of a sweep."""
CACHE = Path(__file__).resolve().parents[2] / ".demo" / "language"


class Promises:
    """The promises about one fine-tune.

    Parameters
    ----------
    task : Task
        The fine-tune.
    cache : Path
        Folder of downloads, models and results.
    """

    def __init__(self, task: Task, cache: Path) -> None:
        from transformers import AutoTokenizer

        self._task, self._base, self._fine = task, base_directory(cache), fine_tune(task, cache)
        self._folder = cache / "promises" / task.directory(cache).name
        self._folder.mkdir(parents=True, exist_ok=True)
        texts = load_texts(task.texts, cache, AutoTokenizer.from_pretrained(self._base)).calibration[:TEXTS]
        self._texts = len(texts)
        self._samples = write_samples(texts, self._folder / "calibration.jsonl")
        self._cache = cache

    def rows(self) -> list[dict[str, Any]]:
        """Return what came of the promise for each bound."""
        return [self._stored(f"promise-{part}", lambda part=part: self._row(part)) for part in PARTS]

    def sweep(self, part: int) -> dict[str, Any]:
        """Return the smallest calibrated pack that meets a bound, in sizes that fall in steps of `STEP`."""
        promised = self._stored(f"promise-{part}", lambda: self._row(part))
        size, smallest = promised["size"], None
        while size:
            point = self._stored(f"size-{size}", lambda size=size: self._at_size(size))
            if point["kl"] > promised["bound"]:
                break
            smallest, size = size, round(size / STEP)
        return {"task": self._task.name, "part": part, "promised": promised["size"], "smallest": smallest}

    def _row(self, part: int) -> dict[str, Any]:
        bound = self._stored("base", self._base_kl)["kl"] / part
        out, start = self._folder / f"promise-{part}.safetensors", time.perf_counter()
        row: dict[str, Any] = {"task": self._task.name, "part": part, "bound": bound}
        try:
            with dtscodec.Journal(out.with_suffix(".part")) as journal:
                promised = dtscodec.encode_promised(
                    self._base,
                    self._fine,
                    out,
                    dtscodec.MaxKl(bound),
                    samples=self._samples,
                    steps=STEPS,
                    journal=journal,
                    force=True,
                    on_trial=lambda trial: print(
                        f"{self._task.name} 1/{part}: {trial.size:,} bytes, fitted: {trial.is_fitted}", flush=True
                    ),
                )
        except dtscodec.DtsError as error:
            return row | {"error": str(error)}
        fits = sum(trial.is_fitted for trial in promised.trials)
        row |= {"size": promised.encoded.pack_bytes, "share": promised.encoded.pack_bytes / promised.encoded.fine_bytes}
        row |= {"claim": asdict(promised.claim), "trials": len(promised.trials), "fits": fits}
        row |= {"texts": self._texts, "steps": STEPS}
        row |= {"measurements": promised.measurements, "minutes": (time.perf_counter() - start) / 60}
        return row | self._judged(out)

    def _at_size(self, size: int) -> dict[str, Any]:
        out = self._folder / f"size-{size}.safetensors"
        config = dtscodec.EncodeConfig(dtscodec.Size.parse(f"{size}B"))
        prepared = prepare_samples(read_architecture(self._fine), self._samples)
        with tempfile.TemporaryDirectory() as folder, dtscodec.Journal(out.with_suffix(".part")) as journal:
            samples = split_samples(prepared, str(self._samples), Path(folder)).fit
            dtscodec.encode_calibrated(
                self._base, self._fine, out, config, samples=samples, steps=STEPS, journal=journal, force=True
            )
        return {"size": size} | self._judged(out)

    def _base_kl(self) -> dict[str, Any]:
        figures = Judge(self._task, self._cache, TOKENS).figures(load_file(self._base / "model.safetensors"))
        return {"kl": figures.kl}

    def _judged(self, pack: Path) -> dict[str, Any]:
        judge = Judge(self._task, self._cache, TOKENS)
        with dtscodec.decode(pack, self._base) as decoded:
            figures = judge.figures({name: decoded[name] for name in decoded})
        return asdict(figures)

    def _stored(self, name: str, compute: Any) -> dict[str, Any]:
        path = self._folder / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(compute(), indent=1) + "\n")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown, and how many promises hold."""
    lines = ["| task | bound | pack | share | claimed, limit | on test texts | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        head = f"| {row['task']} | {row['bound']:.3g} (1/{row['part']}) |"
        if "error" in row:
            lines.append(f"{head} | | | | {row['error']} |")
            continue
        claim = row["claim"]
        pack = (
            f"{row['size'] / 1e6:.2f} MB | {row['share']:.2%} | {claim['figure'] / 1e9:.3g}, {claim['limit'] / 1e9:.3g}"
        )
        verdict = f"{row['kl'] / row['bound'] - 1:+.0%}; {row['fits']} fits, {row['minutes']:.0f} min"
        lines.append(f"{head} {pack} | {row['kl']:.3g} ± {row['kl_error']:.2g} | {verdict} |")
    kept = sum(row.get("kl", float("inf")) <= row["bound"] for row in rows)
    missed = max((row["kl"] / row["bound"] - 1 for row in rows if "kl" in row), default=0.0)
    return "\n".join([*lines, "", f"{kept} of {len(rows)} kept on the test texts; the largest excess is {missed:+.1%}"])


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="fine-tunes (default: all five)")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--sweep", action="append", default=[], metavar="TASK", help="also search for smaller packs")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for task in FULL:
        if not options.tasks or task.name in options.tasks:
            rows += Promises(task, options.cache.resolve()).rows()
    print(table(rows))
    for task in (task for task in FULL if task.name in options.sweep):
        for part in PARTS:
            print(json.dumps(Promises(task, options.cache.resolve()).sweep(part)))


if __name__ == "__main__":
    main()
