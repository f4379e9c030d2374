from pathlib import Path

import pytest

from tests.evaluation.helpers import LABELS, Made, make, write_texts
from tests.evaluation.pictures import make_image_classifier, write_images


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts.jsonl")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "labelled.jsonl", LABELS)


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_image_classifier("vit", tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_image_classifier("resnet", tmp_path_factory.mktemp("resnet"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")
