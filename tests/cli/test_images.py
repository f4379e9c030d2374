"""Commands that take texts, given a folder of images."""

import re
from pathlib import Path

import pytest

import dtscodec
from tests.cli.helpers import Cli
from tests.evaluation.helpers import Made, make
from tests.evaluation.pictures import make_image_classifier, write_images

pytestmark = pytest.mark.slow

SMALL = ("--size", "12kB")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_image_classifier("vit", tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def images(work: Path) -> str:
    return str(write_images(work / "images"))


def test_compare_counts_images(cli: Cli, vit: Made, images: str) -> None:
    last = cli("compare", str(vit.pack), str(vit.fine), "--base", str(vit.base), "--samples", images).splitlines()[-1]
    assert re.fullmatch(r"behaviour   7 images: KL \d\S*, agrees \d+\.\d %, accuracy \d+\.\d % -> \d+\.\d %", last)


def test_a_pack_that_is_fitted_to_images_says_so(cli: Cli, vit: Made, images: str) -> None:
    out = cli("encode", str(vit.base), f"t={vit.fine}", "-o", "fitted", *SMALL, "--calibration", images)
    assert " before the fit to 7 images, KL on these " in out
    assert Path("fitted").stat().st_size <= 12_000
    with dtscodec.open("fitted") as pack:
        assert pack.summary.encoder.endswith(" distilled")  # type: ignore[union-attr]


def test_collect_counts_images(cli: Cli, vit: Made, images: str) -> None:
    assert cli("collect", str(vit.fine), images, "-o", "grams.safetensors").startswith("7 images: ")
    dtscodec.collect(vit.fine, "same.safetensors", samples=images)
    assert Path("grams.safetensors").read_bytes() == Path("same.safetensors").read_bytes()


def test_unsuitable_samples_are_reported_before_the_encode(
    cli: Cli, vit: Made, classifier: Made, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(made: Made, data: str) -> str:
        return cli.fails("encode", str(made.base), str(made.fine), "-o", "out", "--calibration", data)

    monkeypatch.setattr("dtscodec.calibration.encode_calibrated.encode", None)
    Path("texts.txt").write_text("w5 w6\n")
    assert fails(vit, "texts.txt").startswith("texts.txt: expected a folder of images for a ViTFor")
    assert fails(classifier, images).startswith(f"{images}: expected a file of texts for a BertFor")
    Path(images, "0", "z.png").write_text("no image")
    assert fails(vit, images).startswith(f"{images}/0/z.png: expected a whole image")
    Path(images, "z.txt").touch()
    assert fails(vit, images).startswith(f"{images}/z.txt: expected an image")
