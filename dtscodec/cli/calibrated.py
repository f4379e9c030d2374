"""``dtscodec encode --calibration``: what its options mean, and encoding with them."""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import arguments
from dtscodec.cli.progress import progress_bar
from dtscodec.encoding.config import DAMPING as DAMPING
from dtscodec.encoding.config import STEPS
from dtscodec.errors import NothingToFitError

if TYPE_CHECKING:
    from dtscodec import Base, EncodeConfig, EncodeReport
    from dtscodec.calibration.fit import FitReport
    from dtscodec.encoding.journal import Journal


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("calibration")
    group.add_argument(
        "--calibration",
        metavar="DATA",
        help="texts or images to try the fine-tune on (as for compare --samples): levels and scales are fitted to what "
        "it does with them, and the pack stays as large. Or Gram matrices of `dtscodec collect`, *.safetensors: see "
        "--esd",
    )
    group.add_argument(
        "--steps", metavar="N", type=arguments.count, help=f"steps of that fit (default: {STEPS}); none with --no-fit"
    )
    group.add_argument("--no-fit", action="store_true", help="leave levels and scales as they are")
    group.add_argument(
        "--no-elements", action="store_true", help="fit levels and scales only, not biases and norms one by one"
    )
    group.add_argument(
        "--bias-correction", action="store_true", help="before the fit, add to biases what layers put out too little"
    )
    group.add_argument(
        "--esd",
        metavar="DAMPING",
        nargs="?",
        type=arguments.damping,
        const=DAMPING,
        help="keep what layers put out, rather than their weights, where these are decomposed; from 0 for outputs "
        f"alone to above 1 for hardly more than weights (default: {DAMPING})",
    )
    group.add_argument(
        "--model", metavar="DIR", help="directory of configuration and tokenizer or the like (default: FT)"
    )


def of(options: argparse.Namespace) -> "Samples | str | None":
    """Samples to fit to, or the path of a file of Gram matrices, or neither. Both are looked at before longer work.

    Raises
    ------
    SamplesError, CheckpointError
        They cannot be read.
    """
    from dtscodec.activations.gram_file import Grams
    from dtscodec.evaluation.samples import read_samples

    parser: argparse.ArgumentParser = options.parser
    if not options.calibration:
        if options.esd is not None or _for_samples(options):
            parser.error(f"--esd, {_FOR_SAMPLES} need --calibration DATA")
        return None
    if options.calibration.endswith(".safetensors"):
        if _for_samples(options):
            parser.error(f"{_FOR_SAMPLES} are for texts and images, got a file of Gram matrices")
        Grams(options.calibration).close()
        return str(options.calibration)
    if options.no_fit and (options.steps or options.no_elements):
        parser.error("--no-fit goes without --steps and --no-elements, which are of the fit")
    if options.no_fit and options.esd is None and not options.bias_correction:
        parser.error("--no-fit leaves nothing to do with the samples: add --esd or --bias-correction")
    read_samples(Path(options.calibration))
    steps = 0 if options.no_fit else options.steps or STEPS
    fit = Fit(steps, not options.no_elements, options.bias_correction)
    return Samples(options.calibration, options.model, fit, options.esd, options.device)


_FOR_SAMPLES = "--steps, --no-fit, --no-elements, --bias-correction and --model"


def _for_samples(options: argparse.Namespace) -> bool:
    """Whether an option is given that says what to do with samples."""
    flags = options.no_fit or options.no_elements or options.bias_correction
    return bool(options.steps or flags or options.model)


@dataclass(frozen=True, slots=True)
class Fit:
    """What is fitted; see `dtscodec.calibration.fit.fit`."""

    steps: int
    elements: bool
    bias_correction: bool

    def __bool__(self) -> bool:
        """Whether anything is."""
        return self.steps > 0 or self.bias_correction


@dataclass(frozen=True, slots=True)
class Samples:
    """Texts or images that packs are fitted to.

    Parameters
    ----------
    path, model : str
        The file or folder, and the model directory, if it is another than the fine-tune.
    fit : Fit
    damping : float, optional
        Of Gram matrices that are to be collected first.
    device : str
    """

    path: str
    model: str | None
    fit: Fit
    damping: float | None
    device: str

    @property
    def kind(self) -> str:
        """The word for them."""
        from dtscodec.evaluation.samples import sample_kind

        return sample_kind(self.path)

    def gain(self, fitted: "FitReport") -> str:
        """What a fit did to the KL; that it rose, which it may where hidden states came closer, is said."""
        before, after = fitted.before.kl, fitted.after.kl
        way_out = "more --steps may help" if self.fit.steps else "a fit may help"
        rose = f" (it rose: {way_out})" if after > before else ""
        return f"KL on these {before:.2g} -> {after:.2g}{rose}"

    def encode(
        self,
        encode_to: "Callable[[Path, EncodeConfig, bool], EncodeReport]",
        config: "EncodeConfig",
        base: "Base",
        path: str,
        out: Path,
        force: bool,
        journal: "Journal",
    ) -> "tuple[EncodeReport, FitReport | None]":
        """Encode a fine-tune, fit the pack to the samples, and only then write it; unfitted where nothing is coded.

        Parameters
        ----------
        encode_to : callable
            Encodes to a file with a config, and replaces what is there if told so.
        journal : Journal
            Is told of the fitted pack, which a run that goes on then leaves where it is.
        """
        from dtscodec.calibration.collect import collect
        from dtscodec.encoding.config import Best
        from dtscodec.evaluation.architecture import read_architecture
        from dtscodec.evaluation.compare_behaviour import model_directory
        from dtscodec.evaluation.prepared_samples import prepare_samples

        # Samples that this model does not take, or a broken image, are told before the longer work.
        prepare_samples(read_architecture(model_directory(self.model, path)), Path(self.path))
        with tempfile.TemporaryDirectory() as folder:
            if self.damping is not None:
                grams = Path(folder, "grams.safetensors")
                collect(path, grams, samples=self.path, model=self.model, device=self.device)
                assert isinstance(config.preset, Best)
                config = replace(config, preset=replace(config.preset, grams=str(grams), damping=self.damping))
            if not self.fit:
                return encode_to(out, config, force), None
            first = encode_to(Path(folder, "pack.safetensors"), config.for_fitting(), True)
            try:
                fitted = self._fitted(first.path, base, path, out, force, journal)
            except NothingToFitError:
                plain = encode_to(out, config, force)
                return replace(plain, seconds=first.seconds + plain.seconds), None
        seconds = first.seconds + fitted.seconds
        report = replace(first, path=out, pack_id=fitted.pack_id, pack_bytes=fitted.pack_bytes, seconds=seconds)
        return report, fitted

    def _fitted(self, pack: Path, base: "Base", path: str, out: Path, force: bool, journal: "Journal") -> "FitReport":
        """Fit a pack and write it to its place, unless an earlier run has."""
        from dtscodec.calibration.fit import FitReport
        from dtscodec.calibration.fit_loss import FitLoss
        from dtscodec.encoding.encode import holds_pack
        from dtscodec.storage.upload import new_file

        step = f"fit {self}"
        kept = next(journal.stored(step, [path]), None)
        if kept and holds_pack(out, kept["pack_id"]):
            losses = {name: FitLoss(**kept[name]) for name in ("before", "after")}
            return FitReport(path=out, **(kept | losses))
        fitted = self._fit(pack, base, path)
        if not kept:
            journal.store(step, path, {name: value for name, value in asdict(fitted).items() if name != "path"})
        with new_file(out, force) as file:
            file.write(fitted.path.read_bytes())
        return replace(fitted, path=out)

    def _fit(self, pack: Path, base: "Base", path: str) -> "FitReport":
        """Fit a pack, and write it beside itself."""
        from dtscodec.calibration.fit import fit

        with progress_bar("fit", self.fit.steps, unit=" steps") as progress:
            return fit(
                pack,
                path,
                pack.with_name("fitted.safetensors"),
                base,
                samples=self.path,
                model=self.model,
                **asdict(self.fit),
                device=self.device,
                progress=progress,
            )
