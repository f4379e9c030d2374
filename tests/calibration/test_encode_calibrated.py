"""Encoding and fitting in one call: unfitted where nothing is coded, resumed after an interruption."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import dtscodec
from dtscodec.calibration.encode_calibrated import encode_calibrated
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.encoding.config import EncodeConfig
from dtscodec.errors import CheckpointError, JournalMismatchError, OutputError, SamplesError
from tests.evaluation.helpers import Made, broken
from tests.support import check_against_spec

SMALL = EncodeConfig(dtscodec.Size.parse("12kB"))


def interrupted_at(count: int) -> Callable[[int], None]:
    """A progress callback that interrupts at the given call."""
    calls = iter(range(1, count + 1))

    def progress(size: int) -> None:
        if next(calls) == count:
            raise KeyboardInterrupt

    return progress


def encoder_of(pack: Path) -> str:
    with dtscodec.open(pack) as opened:
        return opened.summary.encoder or ""


def test_it_is_an_encode_and_a_fit_of_the_same_size(classifier: Made, texts: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    encoded, fitted = encode_calibrated(
        classifier.base, classifier.fine, tmp_path / "out", SMALL, samples=texts, steps=30, fit_progress=steps.append
    )
    assert fitted is not None
    dtscodec.encode(classifier.base, classifier.fine, tmp_path / "first", SMALL.for_fitting())
    options = {"samples": texts, "steps": 30}
    dtscodec.fit(tmp_path / "first", classifier.fine, tmp_path / "again", classifier.base, **options)  # type: ignore[arg-type]
    assert (tmp_path / "out").read_bytes() == (tmp_path / "again").read_bytes()
    assert encoded.path == fitted.path == tmp_path / "out"
    assert encoded.pack_id == fitted.pack_id
    assert encoded.pack_bytes == fitted.pack_bytes == (tmp_path / "out").stat().st_size <= 12_000
    assert sum(steps) == 30
    check_against_spec(tmp_path / "out", classifier.base)


def test_an_exact_pack_has_the_fitted_codes_in_its_front(classifier: Made, texts: Path, tmp_path: Path) -> None:
    exact = replace(SMALL, exact=True)
    report, fitted = encode_calibrated(
        classifier.base, classifier.fine, tmp_path / "out", exact, samples=texts, steps=4
    )
    assert fitted is not None
    assert report.residual is not None
    lossy, _ = encode_calibrated(classifier.base, classifier.fine, tmp_path / "l", SMALL, samples=texts, steps=4)
    dtscodec.strip(report.path, tmp_path / "stripped")
    assert (tmp_path / "stripped").read_bytes() == lossy.path.read_bytes()
    with dtscodec.decode(report.path, classifier.base) as decoded, open_checkpoint(classifier.fine) as fine:
        assert all(np.array_equal(decoded.read(name), fine.read(name)) for name in decoded)


def test_a_pack_without_coded_tensors_is_written_as_encode_writes_it(
    classifier: Made, texts: Path, tmp_path: Path
) -> None:
    report, fitted = encode_calibrated(
        classifier.fine, classifier.fine, tmp_path / "out", SMALL, samples=texts, task="t", steps=2
    )
    assert fitted is None
    dtscodec.encode(classifier.fine, classifier.fine, tmp_path / "plain", SMALL, task="t")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "plain").read_bytes()
    assert report.path == tmp_path / "out"


@pytest.mark.parametrize(
    ("preset", "words"), [(dtscodec.Paper(), "preset=paper rank=0.1"), (dtscodec.Best(), "preset=best")], ids=str
)
def test_a_fit_against_a_merged_base_is_named_before_the_base_and_at_the_end(
    classifier: Made, texts: Path, tmp_path: Path, preset: dtscodec.Best | dtscodec.Paper, words: str
) -> None:
    dtscodec.merge([classifier.base, classifier.base], tmp_path / "merged", "average")
    config = EncodeConfig(preset=preset)
    encode_calibrated(tmp_path / "merged", classifier.fine, tmp_path / "out", config, samples=texts, steps=1)
    encoder = f"dtscodec {dtscodec.__version__} {words} distilled; base: average distilled"
    assert encoder_of(tmp_path / "out") == encoder


def test_biases_may_be_corrected_without_a_fit(classifier: Made, texts: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier.fine, tmp_path / "moved")
    weights = load_file(tmp_path / "moved/model.safetensors")
    noisy = {name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in weights.items()}
    save_file(noisy, tmp_path / "moved/model.safetensors", {"format": "pt"})
    options: dict[str, Any] = {"samples": texts, "steps": 0, "bias_correction": True}
    for name, fine in (("same", classifier.fine), ("other", tmp_path / "moved")):
        _, fitted = encode_calibrated(classifier.fine, fine, tmp_path / name, SMALL, **options)
        assert (fitted is None) == (name == "same")
    assert encoder_of(tmp_path / "other").endswith(" distilled")


def test_an_interrupted_run_resumes_and_writes_the_pack_of_an_undisturbed_one(
    classifier: Made, texts: Path, tmp_path: Path
) -> None:
    def run(out: Path, **more: Any) -> int:
        """Encode and fit; return how many results of an earlier run were found."""
        with dtscodec.Journal(out.with_suffix(".part")) as journal:
            found = len(journal)
            options: dict[str, Any] = {"samples": texts, "steps": 2, "journal": journal, **more}
            encode_calibrated(classifier.base, classifier.fine, out, SMALL, **options)
        return found

    assert run(tmp_path / "undisturbed") == 0
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", progress=interrupted_at(9))
    assert run(tmp_path / "out") == 9
    assert (tmp_path / "out").read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert not (tmp_path / "out.part").exists()


def test_a_fit_with_other_settings_does_not_resume(classifier: Made, texts: Path, tmp_path: Path) -> None:
    def run(out: Path, steps: int, **more: Any) -> None:
        with dtscodec.Journal(tmp_path / "part") as journal:
            for name in ("one", "two"):
                path = tmp_path / f"{out.name}-{name}"
                more_of = more if name == "two" else {}
                options: dict[str, Any] = {
                    "task": name,
                    "samples": texts,
                    "steps": steps,
                    "journal": journal,
                    **more_of,
                }
                encode_calibrated(classifier.base, classifier.fine, path, SMALL, **options)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", 2, progress=interrupted_at(9))
    written = (tmp_path / "out-one").stat().st_mtime_ns
    with pytest.raises(JournalMismatchError, match="other inputs or settings"):
        run(tmp_path / "out", 3)
    run(tmp_path / "out", 2)
    assert (tmp_path / "out-one").stat().st_mtime_ns == written


def test_samples_and_an_existing_output_are_refused_before_anything_is_encoded(
    classifier: Made, images: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtscodec.calibration.encode_calibrated.encode", None)
    with pytest.raises(SamplesError, match="expected a file of texts"):
        encode_calibrated(classifier.base, classifier.fine, tmp_path / "out", samples=images)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError):
        encode_calibrated(classifier.base, classifier.fine, tmp_path / "out", samples=texts)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_fine_tune_of_nan_cannot_be_fitted_or_collected_from(classifier: Made, texts: Path, tmp_path: Path) -> None:
    name = "bert.embeddings.LayerNorm.bias"
    fine = broken(classifier.fine, tmp_path / "nan", name)
    config = EncodeConfig(dtscodec.RankShare(0.1), raw=(name,))
    with pytest.raises(CheckpointError, match=r"nan/model\.safetensors: expected finite "):
        encode_calibrated(classifier.base, fine, tmp_path / "out", config, samples=texts, steps=1)
    with pytest.raises(CheckpointError, match=r"nan/model\.safetensors: .*query\.weight: expected finite "):
        dtscodec.collect(fine, tmp_path / "grams.safetensors", samples=texts)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "grams.safetensors").exists()
