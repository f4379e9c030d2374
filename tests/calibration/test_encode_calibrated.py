"""Encoding and fitting in one call: unfitted where nothing is coded, resumed after an interruption, by any metric."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import dtscodec
from dtscodec.calibration.encode_calibrated import encode_calibrated
from dtscodec.encoding.config import EncodeConfig
from dtscodec.errors import CheckpointError, JournalMismatchError, OutputError, SamplesError
from dtscodec.executors.processes import processes
from tests.evaluation.helpers import Made, broken
from tests.support import check_against_spec

SIZE = dtscodec.Size.parse("12kB")
SMALL = EncodeConfig(SIZE)


def by_metric(grams: Path, **preset: Any) -> EncodeConfig:
    """Settings that measure errors in layer outputs."""
    return EncodeConfig(SIZE, dtscodec.Best(grams=str(grams), **preset))


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


@pytest.fixture
def grams(classifier: Made, texts: Path, tmp_path: Path) -> Path:
    dtscodec.collect(classifier.fine, tmp_path / "grams.safetensors", samples=texts)
    return tmp_path / "grams.safetensors"


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


@pytest.mark.parametrize("has_metric", [False, True])
def test_a_pack_without_coded_tensors_is_written_as_encode_writes_it(
    classifier: Made, texts: Path, grams: Path, tmp_path: Path, has_metric: bool
) -> None:
    config = by_metric(grams) if has_metric else SMALL
    report, fitted = encode_calibrated(
        classifier.fine, classifier.fine, tmp_path / "out", config, samples=texts, task="t", steps=2
    )
    assert fitted is None
    dtscodec.encode(classifier.fine, classifier.fine, tmp_path / "plain", config, task="t")
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


def test_an_interrupted_encode_resumes_with_gram_matrices_that_are_collected_again(
    classifier: Made, texts: Path, tmp_path: Path
) -> None:
    def run(out: Path, **more: Any) -> int:
        """Collect and encode; return how many results of an earlier run were found."""
        grams = out.with_suffix(".safetensors")
        dtscodec.collect(classifier.fine, grams, samples=texts, force=True)
        with dtscodec.Journal(out.with_suffix(".part")) as journal:
            found = len(journal)
            encode_calibrated(
                classifier.base,
                classifier.fine,
                out,
                by_metric(grams),
                samples=texts,
                steps=2,
                journal=journal,
                **more,
            )
        return found

    assert run(tmp_path / "undisturbed") == 0
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", progress=interrupted_at(9))
    assert run(tmp_path / "out") == 9
    assert (tmp_path / "out").read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert not (tmp_path / "out.part").exists()


def test_a_journal_knows_gram_matrices_by_content_wherever_the_file_is(
    classifier: Made, texts: Path, grams: Path, tmp_path: Path
) -> None:
    other, fewer = tmp_path / "other.safetensors", tmp_path / "fewer.txt"
    copy = tmp_path / "copy.safetensors"
    dtscodec.collect(classifier.fine, copy, samples=texts)
    assert copy.read_bytes() == grams.read_bytes()
    fewer.write_text("w5 w6\n")
    dtscodec.collect(classifier.fine, other, samples=fewer)
    out = tmp_path / "out"

    def run(grams: Path, **more: Any) -> int:
        with dtscodec.Journal(tmp_path / "part") as journal:
            found = len(journal)
            dtscodec.encode(classifier.base, classifier.fine, out, by_metric(grams), journal=journal, **more)
        return found

    with pytest.raises(KeyboardInterrupt):
        run(grams, progress=interrupted_at(9))
    with pytest.raises(JournalMismatchError, match="other inputs or settings"):
        run(other)
    assert run(copy) == 9
    dtscodec.encode(classifier.base, classifier.fine, tmp_path / "whole", by_metric(grams))
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


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


def test_the_activation_metric_is_named_in_the_summary(classifier: Made, grams: Path, tmp_path: Path) -> None:
    dtscodec.encode(classifier.base, classifier.fine, tmp_path / "pack", by_metric(grams))
    assert encoder_of(tmp_path / "pack").endswith("preset=best esd=0.1")
    check_against_spec(tmp_path / "pack", classifier.base)


def test_workers_make_the_same_pack_with_gram_matrices(classifier: Made, grams: Path, tmp_path: Path) -> None:
    config = by_metric(grams, damping=0.01)
    dtscodec.encode(classifier.base, classifier.fine, tmp_path / "one", config)
    with processes(2) as executor:
        dtscodec.encode(classifier.base, classifier.fine, tmp_path / "two", config, executor=executor)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_gram_matrices_of_images_make_another_pack(vit: Made, images: Path, tmp_path: Path) -> None:
    dtscodec.collect(vit.fine, tmp_path / "grams.safetensors", samples=images)
    ids = set()
    for name, config in (("metric", by_metric(tmp_path / "grams.safetensors")), ("plain", SMALL)):
        ids.add(dtscodec.encode(vit.base, vit.fine, tmp_path / name, config).pack_id)
    assert len(ids) == 2


def test_bad_gram_matrices_are_refused_and_nothing_written(classifier: Made, tmp_path: Path) -> None:
    for grams, message in (
        (tmp_path / "none.safetensors", "none.safetensors"),
        (classifier.fine / "model.safetensors", "Gram matrix"),
    ):
        with pytest.raises(CheckpointError, match=message):
            dtscodec.encode(classifier.base, classifier.fine, tmp_path / "out", by_metric(grams))
    assert not (tmp_path / "out").exists()


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
