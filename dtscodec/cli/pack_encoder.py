"""The encoding of one fine-tune after the other, as `encode` and `family` ask for it, and what they print about it."""

import argparse
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtscodec.calibration.fit_settings import STEPS
from dtscodec.cli import console
from dtscodec.cli.console import progress_bar
from dtscodec.cli.promise_lines import measure_line, trial_facts, trial_line, unit_of
from dtscodec.cli.result_lines import fit_words, note_lines, pack_line, report_facts
from dtscodec.packs.claims import claim_facts, claim_words

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dtscodec import Base, EncodeConfig, EncodeReport, FitReport, Journal, PromisedPack
    from dtscodec.checkpoints.checkpoint import Checkpoint
    from dtscodec.progress import ProgressCallback


class PackEncoder:
    """Encodes one fine-tune at a time, calibrated if samples are given, and prints a line about each pack."""

    def __init__(self, options: argparse.Namespace, fine_tunes: dict[str, str], base: str | None = None) -> None:
        self._samples, self._device, self._paths = options.calibration, options.device, fine_tunes
        self._json, self._offload, self._bound, self._base = options.json, options.offload, options.bound, base
        self._promised: dict[str, PromisedPack] = {}
        self._fits: dict[str, FitReport | None] = {}
        self._reports: dict[str, EncodeReport] = {}

    def __call__(
        self,
        base: "Base",
        fine_tune: "Checkpoint",
        out: Path,
        config: "EncodeConfig",
        *,
        task: str,
        force: bool,
        progress: "ProgressCallback",
        executor: "Executor | None",
        journal: "Journal | None",
    ) -> "EncodeReport":
        """Write the pack of one fine-tune; see `dtscodec.encode`."""
        from dtscodec import encode, encode_calibrated

        if self._bound is not None:
            return self._encode_promised(base, out, config, task, force, executor, journal)
        if not self._samples:
            return encode(
                base,
                fine_tune,
                out,
                config,
                task=task,
                force=force,
                progress=progress,
                executor=executor,
                journal=journal,
            )
        with ExitStack() as stack:
            # The bar of the fit appears when that of the encode is complete and gone.
            fit_bar = cache(lambda: stack.enter_context(progress_bar("fit", STEPS, unit=" steps")))
            report, fitted = encode_calibrated(
                base,
                self._paths[task],
                out,
                config,
                samples=self._samples,
                device=self._device,
                offload=self._offload,
                task=task,
                force=force,
                progress=progress,
                fit_progress=lambda count: fit_bar()(count),
                executor=executor,
                journal=journal,
            )
        self._fits[task] = fitted
        return report

    def _encode_promised(
        self,
        base: "Base",
        out: Path,
        config: "EncodeConfig",
        task: str,
        force: bool,
        executor: "Executor | None",
        journal: "Journal | None",
    ) -> "EncodeReport":
        """Write the smallest pack that keeps the bound; a note tells of each pack that is tried."""
        from dtscodec import encode_promised

        promised = encode_promised(
            base,
            self._paths[task],
            out,
            self._bound,
            config,
            samples=self._samples,
            device=self._device,
            offload=self._offload,
            task=task,
            force=force,
            executor=executor,
            journal=journal,
            progress=lambda step, total: progress_bar(f"{task}: {step}", total, unit_of(step)),
            on_trial=lambda trial: console.print_hint(trial_line(task, trial, self._bound)),
        )
        self._promised[task], self._fits[task] = promised, promised.fitted
        return promised.encoded

    def print_report(self, task: str, report: "EncodeReport") -> None:
        """Print a line about a pack, and one for each note on it; with ``--json`` keep them for `print_end`."""
        self._reports[task] = report
        if not self._json:
            fit = fit_words(self._fits[task], self._samples) if self._samples else ""
            lines = [pack_line(task, report, fit), *note_lines(task, report)]
            if task in self._promised:
                lines.append(f"{task}: {claim_words(self._promised[task].claim)}")
            console.print_lines(*lines)

    def print_end(self) -> None:
        """Print all reports as one document, if ``--json`` asks for it; else say how to measure a pack."""
        task, report = list(self._reports.items())[-1]
        if not self._json and not self._samples and (Path(self._paths[task]) / "config.json").is_file():
            console.print_hint(measure_line(task, report.path, self._paths[task], self._base))
        if self._json:
            packs = {task: report_facts(report) for task, report in self._reports.items()}
            fits = {task: {"fit": fit and report_facts(fit)} for task, fit in self._fits.items()}
            fits = {task: facts | self._promise_facts(task) for task, facts in fits.items()}
            console.print_json({"packs": {task: facts | fits.get(task, {}) for task, facts in packs.items()}})

    def _promise_facts(self, task: str) -> dict[str, Any]:
        """Return the claim and the packs that were tried, as JSON; nothing without a bound."""
        promised = self._promised.get(task)
        if promised is None:
            return {}
        trials = [trial_facts(trial, self._bound) for trial in promised.trials]
        return {"claim": claim_facts(promised.claim), "measurements": promised.measurements, "trials": trials}
