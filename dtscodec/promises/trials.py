"""Trials of a search: packs of some sizes, before and after the fit, compared with the fine-tune on samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from dtscodec.calibration.fit import FitReport, fit
from dtscodec.calibration.fit_loss import FitLoss
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.decoding.decode import decode
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.encode import passes
from dtscodec.encoding.encode_all import ProgressOf
from dtscodec.encoding.journal import Journal, NoJournal
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.targets import Size
from dtscodec.errors import NothingToFitError, SizeError
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.compare_behaviour import sample_sums
from dtscodec.evaluation.prediction_sums import PredictionSums
from dtscodec.evaluation.samples import prepare_samples
from dtscodec.messages import size as size_words
from dtscodec.promises.splits import Splits
from dtscodec.storage.open_file import WHOLE

CLAIM_BYTES = 512
"""Room for the claim in a pack: the encoder is asked for packs that are smaller by this."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A pack of some size, compared with its fine-tune.

    Parameters
    ----------
    size : int
        The size that was asked for, in bytes.
    is_fitted : bool
        Whether the pack was fitted.
    pack : Path
        The pack, in a temporary folder.
    samples : sequence of PredictionSums
        Sums over the predictions of each sample that the size is chosen on.
    """

    size: int
    is_fitted: bool
    pack: Path
    samples: Sequence[PredictionSums]


@dataclass(slots=True)
class Trials:
    """Makes trials, each once. What a journal has stored is not computed again.

    Parameters
    ----------
    base : Base
        The base.
    checkpoint : Checkpoint
        The fine-tune.
    fine_tune : path or mapping of tensors
        The fine-tune, as `dtscodec.fit` takes it.
    model : Path
        The directory of configuration, and tokenizer or image processor.
    config : EncodeConfig
        Settings of the encoder; the target is replaced.
    splits : Splits
        The samples.
    settings : mapping of str to object
        Further arguments of `dtscodec.fit`, on which the results depend.
    offload : bool or None
        As for `dtscodec.fit`.
    encode : callable
        `dtscodec.encode` with base, fine-tune, task and executor.
    folder : Path
        A folder for packs.
    journal : Journal or NoJournal
        Stores results.
    progress : callable
        Returns a context manager for each step, as for `dtscodec.encode_all`.
    on_trial : callable
        Called with each trial.
    """

    base: Base
    checkpoint: Checkpoint
    fine_tune: Source
    model: Path
    config: EncodeConfig
    splits: Splits
    settings: Mapping[str, Any]
    offload: bool | None
    encode: Callable[..., EncodeReport]
    folder: Path
    journal: Journal | NoJournal
    progress: ProgressOf
    on_trial: Callable[[Trial], None]
    fits: dict[int, FitReport | None] = field(default_factory=dict)
    encodes: dict[int, EncodeReport] = field(default_factory=dict)
    _plain: dict[int, Trial] = field(default_factory=dict)
    _fitted: dict[int, Trial] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Trial, ...]:
        """All trials, before the fit and then after it, in order."""
        return (*self._plain.values(), *self._fitted.values())

    @property
    def all_fitted(self) -> Mapping[int, Trial]:
        """The fitted trials by size."""
        return self._fitted

    def plain(self, size: int) -> Trial:
        """Return the trial of the pack before the fit.

        Parameters
        ----------
        size : int
            Largest size of the pack with its claim, in bytes.

        Raises
        ------
        SizeError
            No pack is as small.
        """
        if size not in self._plain:
            pack = self._encode(size)
            self._plain[size] = self._trial(size, pack, is_fitted=False)
        return self._plain[size]

    def fitted(self, size: int) -> Trial:
        """Return the trial of the fitted pack; see `plain`."""
        if size not in self._fitted:
            pack = self._fit(size, self._encode(size))
            self._fitted[size] = self._trial(size, pack, is_fitted=True)
        return self._fitted[size]

    def _encode(self, size: int) -> Path:
        pack = self.folder / f"{size}.safetensors"
        if pack.exists():
            return pack
        target = Size(Fraction(max(1, size - CLAIM_BYTES)), "bytes")
        config = replace(self.config, target=target).for_fitting()
        total = passes(config) * sum(spec.nbytes for spec in self.checkpoint.specs.values())
        try:
            with self.progress(f"encode {size_words(size)}", total) as progress:
                self.encodes[size] = self.encode(pack, config, progress=progress, journal=_or_none(self.journal))
        except SizeError as error:
            raise SizeError(error.problem, error.remedy, error.smallest + CLAIM_BYTES) from error
        return pack

    def _fit(self, size: int, pack: Path) -> Path:
        """Fit a pack, or take it from the journal."""
        out = self.folder / f"{size}.fitted.safetensors"
        step = f"fit {dict(self.settings)} {self.splits.digest_of_all} {self.model}"
        stored = next(self.journal.stored(step, [str(size)]), None)
        if stored is None:
            stored = self._fit_anew(size, pack, out)
            self.journal.store(step, str(size), stored)
        content, report = stored
        out.write_bytes(content)
        self.fits[size] = None if report is None else _report_of(report, out)
        return out

    def _fit_anew(self, size: int, pack: Path, out: Path) -> tuple[bytes, dict[str, Any] | None]:
        """Return a fitted pack and the report without its path; the pack itself if it has nothing to fit."""
        try:
            with self.progress(f"fit {size_words(size)}", self.settings["steps"]) as progress:
                report = fit(
                    pack,
                    self.fine_tune,
                    out,
                    self.base,
                    samples=self.splits.fit,
                    model=self.model,
                    offload=self.offload,
                    progress=progress,
                    **self.settings,
                )
        except NothingToFitError:
            return pack.read_bytes(), None
        return out.read_bytes(), {name: value for name, value in asdict(report).items() if name != "path"}

    def _trial(self, size: int, pack: Path, *, is_fitted: bool) -> Trial:
        trial = Trial(size, is_fitted, pack, self.compare(pack, self.splits.choose))
        self.on_trial(trial)
        return trial

    def compare(self, pack: Path, samples: Path) -> list[PredictionSums]:
        """Return the sums over the predictions of each sample, of a pack's model compared with the fine-tune.

        Parameters
        ----------
        pack : Path
            The pack.
        samples : Path
            A part of the samples.
        """
        step, name = f"compare {samples.stem} {self.splits.digest_of_all} {self.model}", pack.name
        stored = next(self.journal.stored(step, [name]), None)
        if stored is None:
            stored = [astuple(sums) for sums in self._compare_anew(pack, samples)]
            self.journal.store(step, name, stored)
        return [PredictionSums(*values) for values in stored]

    def _compare_anew(self, pack: Path, samples: Path) -> list[PredictionSums]:
        architecture, device = read_architecture(self.model), self.settings["device"]
        prepared = prepare_samples(architecture, samples)
        with open_checkpoint(self.fine_tune, WHOLE) as fine:
            tuned = architecture.load(fine).to(device)
        with decode(pack, self.base, whole=True) as decoded:
            ours = architecture.build(decoded, str(pack)).to(device)
        with self.progress("compare", len(prepared.samples)) as progress:
            return sample_sums(tuned, ours, prepared, self.settings["batch_size"], progress, device)


def _or_none(journal: Journal | NoJournal) -> Journal | None:
    return journal if isinstance(journal, Journal) else None


def _report_of(record: dict[str, Any], path: Path) -> FitReport:
    losses = {name: FitLoss(**record[name]) for name in ("before", "after")}
    return FitReport(path=path, **(record | losses))
