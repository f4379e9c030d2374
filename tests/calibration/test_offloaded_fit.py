"""Fits whose models are in memory one layer at a time: the pack is that of whole models."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

import dtscodec
from dtscodec.calibration import available_memory as memory
from dtscodec.calibration.fit import fit
from dtscodec.errors import CheckpointError
from tests.evaluation.helpers import Made, make, save_tokenizer
from tests.models import make_pair, save


@pytest.mark.parametrize("kind", ["classifier", "language_model", "vit"])
def test_the_pack_is_that_of_whole_models(
    kind: str, request: pytest.FixtureRequest, texts: Path, images: Path, tmp_path: Path
) -> None:
    made: Made = request.getfixturevalue(kind)
    samples = images if kind == "vit" else texts
    whole, offloaded = (
        fit(made.pack, made.fine, tmp_path / f"{offload}", made.base, samples=samples, steps=6, offload=offload)
        for offload in (False, True)
    )
    assert offloaded.after == whole.after != whole.before
    assert offloaded.pack_id == whole.pack_id
    assert (whole.offloaded, offloaded.offloaded) == (False, True)


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_so_it_is_for_other_architectures(name: str, texts: Path, tmp_path: Path) -> None:
    made = make(name, tmp_path)
    reports = [
        fit(made.pack, made.fine, tmp_path / f"{offload}", made.base, samples=texts, steps=3, offload=offload)
        for offload in (False, True)
    ]
    assert reports[0].pack_id == reports[1].pack_id


def test_so_it_is_in_half_precision(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtscodec.calibration.precision.multiplies_bfloat16", lambda device: True)
    pair = make_pair("llama")
    base, fine = save(pair.base.bfloat16(), tmp_path / "base"), save(pair.fine.bfloat16(), tmp_path / "fine")
    save_tokenizer(fine, ends=False)
    pack = dtscodec.encode(base, fine, tmp_path / "pack", dtscodec.EncodeConfig(target=dtscodec.Rank(4))).path
    reports = [
        fit(pack, fine, tmp_path / f"{offload}", base, samples=texts, steps=3, offload=offload)
        for offload in (False, True)
    ]
    assert reports[0].pack_id == reports[1].pack_id
    assert reports[0].after != reports[0].before


def test_biases_are_corrected_as_in_whole_models(classifier: Made, texts: Path, tmp_path: Path) -> None:
    reports = [
        fit(
            classifier.pack,
            classifier.fine,
            tmp_path / f"{offload}",
            classifier.base,
            samples=texts,
            steps=0,
            bias_correction=True,
            offload=offload,
        )
        for offload in (False, True)
    ]
    assert reports[0].pack_id == reports[1].pack_id
    assert reports[0].after != reports[0].before


def test_weights_in_memory_are_offloaded_too(language_model: Made, texts: Path, tmp_path: Path) -> None:
    fine, base = (load_file(folder / "model.safetensors") for folder in (language_model.fine, language_model.base))
    found = fit(
        language_model.pack,
        fine,
        tmp_path / "found",
        base,
        samples=texts,
        model=language_model.fine,
        steps=2,
        offload=True,
    )
    whole = fit(
        language_model.pack, language_model.fine, tmp_path / "whole", language_model.base, samples=texts, steps=2
    )
    assert found.pack_id == whole.pack_id


def test_models_that_do_not_fit_into_the_available_memory_are_offloaded(
    language_model: Made, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for available in (None, 10**12, 10**6):
        monkeypatch.setattr("dtscodec.calibration.fit_models.available_memory", lambda device: available)  # noqa: B023
        made = language_model
        report = fit(made.pack, made.fine, tmp_path / f"{available}", made.base, samples=texts, steps=0)
        found.append(report.offloaded)
    assert found == [False, False, True]


def test_a_model_that_cannot_be_offloaded_is_fitted_whole_or_refused(
    resnet: Made, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtscodec.calibration.fit_models.available_memory", lambda device: 0)
    report = fit(resnet.pack, resnet.fine, tmp_path / "whole", resnet.base, samples=images, steps=0)
    assert not report.offloaded
    with pytest.raises(CheckpointError, match=r"expected a transformer, .* got a ResNetForImageClassification"):
        fit(resnet.pack, resnet.fine, tmp_path / "out", resnet.base, samples=images, steps=0, offload=True)
    assert not (tmp_path / "out").exists()


def test_the_available_memory_is_what_system_and_container_leave(tmp_path: Path) -> None:
    meminfo, groups = tmp_path / "proc" / "meminfo", tmp_path / "sys" / "fs" / "cgroup"
    assert list(memory._of_system(tmp_path)) == []
    meminfo.parent.mkdir()
    meminfo.write_text("MemTotal:  900 kB\nMemAvailable:  500 kB\n")
    groups.mkdir(parents=True)
    (groups / "memory.max").write_text("max\n")
    assert list(memory._of_system(tmp_path)) == [500 * 1024]
    (groups / "memory.max").write_text("400000\n")
    (groups / "memory.stat").write_text("anon 150000\nfile 100000\n")
    assert list(memory._of_system(tmp_path)) == [500 * 1024, 250_000]
    assert (memory.available_memory("cpu") or 1) > 0
