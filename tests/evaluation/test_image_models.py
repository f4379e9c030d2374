"""Image classifiers: figures against their definitions, one image at a time, and errors before models load."""

import json
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.errors import BackendError, CheckpointError, SamplesError
from dtscodec.evaluation.architecture import load_image_processor, read_architecture
from tests.evaluation.helpers import Made, plain_kl
from tests.evaluation.pictures import LABELS, plain_inputs, plain_model, write_images


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_figures_of_an_image_classifier_equal_their_definitions(
    name: str, request: pytest.FixtureRequest, images: Path
) -> None:
    made: Made = request.getfixturevalue(name)
    behaviour = made.compare(images, batch_size=3)
    inputs, labels = plain_inputs(name, images), torch.tensor(LABELS)
    with torch.no_grad():
        fine, decoded = (
            torch.cat([model(each[None]).logits.double() for each in inputs])
            for model in (plain_model(name, made.fine), plain_model(name, made.restored()))
        )
    assert (behaviour.samples, behaviour.predictions, behaviour.perplexity) == (len(LABELS), len(LABELS), None)
    assert behaviour.kl == pytest.approx(plain_kl(fine, decoded).mean().item(), rel=1e-3)
    assert behaviour.kl > 0
    assert behaviour.agreement == (fine.argmax(1) == decoded.argmax(1)).double().mean()
    assert behaviour.accuracy is not None
    assert behaviour.accuracy.fine_tune == (fine.argmax(1) == labels).double().mean()
    assert behaviour.accuracy.decoded == (decoded.argmax(1) == labels).double().mean()


def test_unlabelled_images_have_no_accuracy_and_are_otherwise_the_same(vit: Made, images: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    plain = vit.compare(write_images(tmp_path / "plain", labelled=False), batch_size=3, progress=counts.append)
    assert plain.accuracy is None
    assert plain.kl == pytest.approx(vit.compare(images).kl, rel=1e-4)
    assert counts == [3, 3, 1]


def test_texts_are_not_for_image_classifiers_nor_images_for_models_of_texts(
    vit: Made, classifier: Made, images: Path, texts: Path
) -> None:
    with pytest.raises(
        SamplesError, match=f"^{texts}: expected a folder of images for a ViTFor.*, got a file of texts"
    ):
        vit.compare(texts)
    with pytest.raises(
        SamplesError,
        match=f"^{images}: expected a file of texts for a BertFor.*, got a folder.*; give samples of that kind$",
    ):
        classifier.compare(images)


def test_a_broken_image_is_reported_before_models_load(vit: Made, images: Path) -> None:
    (images / "1" / "z.png").write_text("no image")
    with pytest.raises(SamplesError, match=r"z\.png: expected a whole image"):
        dtscodec.compare_behaviour(vit.pack, {}, vit.base, samples=images, model=vit.fine)


@pytest.fixture
def directory(vit: Made, tmp_path: Path) -> Path:
    """A copy of the classifier's directory, which tests damage."""
    return Path(shutil.copytree(vit.fine, tmp_path / "model"))


def change(folder: Path, **fields: object) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no processor": (lambda path: (path / "preprocessor_config.json").unlink(), "expected an image processor that"),
    "no json": (lambda path: (path / "preprocessor_config.json").write_text("{"), "expected an image processor that"),
    "other sizes": (lambda path: change(path, do_resize=False), "makes pictures of one size of these, got"),
    "another size": (lambda path: change(path, size={"height": 16, "width": 16}), "a model that takes these samples"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_unsuitable_image_processor_is_reported_in_one_line(
    vit: Made, directory: Path, images: Path, name: str
) -> None:
    damage, words = CHANGES[name]
    damage(directory)
    with pytest.raises(CheckpointError, match=words) as caught:
        vit.compare(images, model=directory)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_an_image_processor_that_needs_torchvision_says_how_to_install_it(directory: Path) -> None:
    change(directory, image_processor_type="Sam2ImageProcessor")
    with pytest.raises(BackendError, match="needs torchvision; pip install torchvision"):
        load_image_processor(read_architecture(directory))


def test_without_pillow_the_error_says_how_to_install_it(
    vit: Made, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(BackendError, match=r"pip install 'dtscodec\[images\]'"):
        vit.compare(images)


def test_code_of_an_image_processor_is_never_run(directory: Path) -> None:
    (directory / "processing.py").write_text("raise SystemExit('code was run')\n")
    change(directory, auto_map={"AutoImageProcessor": "processing.P"})
    load_image_processor(read_architecture(directory))
    change(directory, image_processor_type="OwnProcessor")
    with pytest.raises(CheckpointError, match="expected an image processor that transformers can read"):
        load_image_processor(read_architecture(directory))
