"""Folder -> image samples, with or without labels."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtscodec.errors import Remedy, SamplesError
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.transformers_library import import_pillow
from dtscodec.messages import one_line

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Formats that Pillow may detect, whatever the name of the file."""
OTHER_FILES = {"readme", "readme.md", "readme.txt", "license", "license.md", "license.txt", "thumbs.db", "desktop.ini"}
"""Names, in lower case, of files that may lie beside images, and are skipped as hidden files are."""


@dataclass(frozen=True, slots=True)
class ImageSample:
    """An image file.

    Parameters
    ----------
    path : Path
        The file.
    label : int, optional
        The index of its class, if it is labelled.
    """

    path: Path
    label: int | None = None

    def open(self) -> Any:
        """Read the image as a `PIL.Image.Image` in RGB, rotated by its EXIF orientation.

        Raises
        ------
        SamplesError
            It is damaged, has more than 8 bits per channel, or is so large that Pillow suspects a decompression bomb.
        BackendError
            Pillow is not installed.
        """
        library = import_pillow()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # About metadata and transparency, which models do not use.
                warnings.simplefilter("error", library.Image.DecompressionBombWarning)
                with library.Image.open(self.path, formats=FORMATS) as picture:
                    if picture.mode[0] in "IF":  # Pillow would clip them at 255.
                        raise ValueError(f"values of more than 8 bits, mode {picture.mode}")
                    return library.ImageOps.exif_transpose(picture).convert("RGB")
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises exceptions of any kind.
            detail = f"expected a whole image of {', '.join(FORMATS)}, got '{one_line(error)}'"
            raise SamplesError(f"{self.path}: {detail}", Remedy("save it again, or remove it")) from error


def read_images(path: Path, classes: Classes | None = None) -> list[ImageSample]:
    """List the images of a folder, sorted by name; `ImageSample.open` reads them.

    Parameters
    ----------
    path : Path
        It holds either images, which then have no labels, or a folder of images for each label, named by the index or
        name of the class. Hidden files and those in `OTHER_FILES` are skipped; any other file is an error.
    classes : Classes, optional
        The classes that labels name; without it labels are ignored.

    Raises
    ------
    SamplesError
        The folder cannot be read, holds no image, or holds other files.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for label in ("dog", "cat"):
    ...         Path(name, label).mkdir()
    ...         Path(name, label, "1.png").touch()
    ...     images = read_images(Path(name), Classes(2, {"dog": 0, "cat": 1}))
    >>> [image.label for image in images]
    [1, 0]
    """
    files, folders = _contents(path)
    # Images without labels lie in the folder itself, those with labels in folders named after them.
    if files and folders:
        detail = "expected images, or folders of them named after their labels, got both"
        raise SamplesError(f"{path}: {detail}: {files[0].name!r} and {folders[0].name!r}", Remedy("label all or none"))
    images = [ImageSample(file) for file in files]
    images += [image for folder in folders for image in _of_label(folder, classes)]
    if not images:
        raise SamplesError(f"{path}: expected at least one image, {_endings()}, got none")
    return images


def _of_label(folder: Path, classes: Classes | None) -> Iterator[ImageSample]:
    """Yield the images of a folder that is named after their label."""
    files, folders = _contents(folder)
    if folders or not files:
        found = f"a folder in it, {folders[0].name!r}" if folders else "none"
        raise SamplesError(f"{folder}: expected images of one label, got {found}", Remedy("remove it"))
    try:
        label = None if classes is None else classes.number(classes.label(folder.name))
    except ValueError as error:
        raise SamplesError(f"{folder}: {error}") from error
    return (ImageSample(file, label) for file in files)


def _contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images and the folders in a folder, each sorted by name."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SamplesError(f"{folder}: expected a folder of images, got '{error.strerror}'") from error
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if not entry.is_dir() and entry.name.lower() not in OTHER_FILES]
    for file in files:
        if file.suffix.lower() not in IMAGE_ENDINGS or not file.is_file():
            raise SamplesError(
                f"{file}: expected an image, {_endings()}, got another file", Remedy("convert it, or remove it")
            )
    return files, folders


def _endings() -> str:
    return ", ".join(f"*{ending}" for ending in IMAGE_ENDINGS)
