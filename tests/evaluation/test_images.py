"""Folders of images: files, labels, and errors for other files."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import Image as Pillow

from dtscodec.errors import SamplesError
from dtscodec.evaluation.image_samples import ImageSample, read_images
from dtscodec.evaluation.labels import Classes
from tests.evaluation.pictures import picture

CLASSES = Classes(3, {"bad": 0, "good": 1, "0": 2})


def put(root: Path, *names: str) -> Path:
    """Write an image under each of the names, by its ending; an empty file if that is none of an image."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_image = path.suffix.lower() in Pillow.registered_extensions() and not name.startswith(".")
        picture(seed).save(path) if is_image else path.touch()
    return root


def found(root: Path, classes: Classes | None = CLASSES) -> list[tuple[str, int | None]]:
    return [(str(image.path.relative_to(root)), image.label) for image in read_images(root, classes)]


def test_images_of_all_endings_are_sorted_by_name_and_have_no_labels(tmp_path: Path) -> None:
    put(tmp_path, "e.webp", "b.JPG", "d.bmp", "a.png", "c.jpeg")
    assert found(tmp_path) == [(name, None) for name in ("a.png", "b.JPG", "c.jpeg", "d.bmp", "e.webp")]
    assert [image.open().size for image in read_images(tmp_path)] == [(50, 40)] * 5


def test_folders_are_labels_and_a_name_precedes_a_number(tmp_path: Path) -> None:
    put(tmp_path, "good/b.png", "good/a.png", "0/c.png", "1/d.png")
    assert found(tmp_path) == [("0/c.png", 2), ("1/d.png", 1), ("good/a.png", 1), ("good/b.png", 1)]


def test_without_classes_labels_are_left_out(tmp_path: Path) -> None:
    assert found(put(tmp_path, "any/a.png"), None) == [("any/a.png", None)]


def test_hidden_files_and_notes_are_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a.png", ".DS_Store", ".hidden/b.png", "README.md", "LICENSE", "Thumbs.db")
    assert found(tmp_path) == [("a.png", None)]


BAD_FOLDERS = {
    "nothing": ([], "expected at least one image"),
    "notes only": (["README.md"], "expected at least one image"),
    "another kind of image": (["a.png", "b.gif"], r"b\.gif: expected an image, .*, got another file"),
    "a table of labels": (["a.png", "metadata.csv"], r"metadata\.csv: expected an image"),
    "another file beside labelled images": (["good/a.png", "labels.txt"], r"labels\.txt: expected an image"),
    "labelled and unlabelled": (["a.png", "good/b.png"], "got both: 'a.png' and 'good'; label all or none"),
    "unknown label": (["good/a.png", "fair/b.png"], "fair: expected a label from 0 to 2, or a name .*, got 'fair'"),
    "label out of range": (["3/a.png"], "3: expected a label from 0 to 2, .*, got 3"),
    "deeper folders": (["good/a.png", "good/more/b.png"], "good: expected images of one label, got a folder"),
    "label without images": (["good/a.png", "bad/README.md"], "bad: expected images of one label, got none"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_folder_with_anything_else_is_refused_and_names_it(tmp_path: Path, name: str) -> None:
    names, words = BAD_FOLDERS[name]
    with pytest.raises(SamplesError, match=words) as caught:
        found(put(tmp_path, *names))
    assert str(caught.value).startswith(str(tmp_path))


def test_anything_but_a_folder_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", put(tmp_path, "a.png") / "a.png"):
        with pytest.raises(SamplesError, match="expected a folder of images, got '"):
            read_images(path)


def test_a_broken_link_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("nowhere.png")
    with pytest.raises(SamplesError, match=r"a\.png: expected an image"):
        read_images(tmp_path)


def test_pictures_are_rotated_by_their_exif_orientation(tmp_path: Path) -> None:
    turned = Pillow.Exif()
    turned[0x0112] = 6  # Orientation: to be turned by 90 degrees.
    picture(0, 20, 30).save(tmp_path / "a.jpg", exif=turned)
    assert ImageSample(tmp_path / "a.jpg").open().size == (20, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_pictures_of_any_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    options: dict[str, Any] = {"transparency": bytes(range(256))} if mode == "P" else {}
    picture(0).convert(mode).save(path, **options)
    assert ImageSample(path).open().mode == "RGB"


def cut(path: Path) -> None:
    picture(0).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-200])


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.touch(), "cannot identify"),
    "a text": (lambda path: path.write_text("no image"), "cannot identify"),
    "cut off": (cut, "truncated"),
    "of another kind": (lambda path: picture(0).save(path, "GIF"), "cannot identify"),
    "of 16 bits": (
        lambda path: Pillow.fromarray(np.full((9, 9), 40_000, np.uint16)).save(path, "PNG"),
        "more than 8 bits",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_whole_image_is_named(tmp_path: Path, name: str) -> None:
    write, words = BAD_FILES[name]
    write(tmp_path / "a.png")
    with pytest.raises(SamplesError, match=words) as caught:
        ImageSample(tmp_path / "a.png").open()
    assert str(caught.value).startswith(f"{tmp_path / 'a.png'}: expected a whole image of PNG, JPEG, WEBP, BMP, got '")


@pytest.mark.parametrize("limit", [1500, 100])  # Pillow warns of up to twice its limit.
def test_a_picture_that_may_be_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    put(tmp_path, "a.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SamplesError, match=r"a\.png: .*2000 pixels.* exceeds limit"):
            ImageSample(tmp_path / "a.png").open()
