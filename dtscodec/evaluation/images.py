"""Images to try a model on, with or without labels, out of a folder."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtscodec.errors import Remedy, SamplesError
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.transformers_library import import_pillow
from dtscodec.messages import one_line

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What Pillow may take a file for, whatever its name."""
BESIDE = {"readme", "readme.md", "readme.txt", "license", "license.md", "license.txt", "thumbs.db", "desktop.ini"}
"""Files, in lower case, that are no images and may lie beside them; hidden ones may, too."""


@dataclass(frozen=True, slots=True)
class Image:
    """The file of an image, and the number of its class, if it is labelled."""

    path: Path
    label: int | None = None

    def open(self) -> Any:
        """The picture, a `PIL.Image.Image`: RGB, upright as its EXIF data have it.

        Raises
        ------
        SamplesError
            It cannot be read whole, or is so large that Pillow takes it for a decompression bomb.
        BackendError
            Pillow is not there.
        """
        library = import_pillow()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of metadata and transparency, which no model sees.
                warnings.simplefilter("error", library.Image.DecompressionBombWarning)
                with library.Image.open(self.path, formats=FORMATS) as picture:
                    if picture.mode[0] in "IF":  # Pillow would cut them off at 255.
                        raise ValueError(f"values of more than 8 bits, mode {picture.mode}")
                    return library.ImageOps.exif_transpose(picture).convert("RGB")
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises errors of any kind.
            detail = f"expected a whole image of {', '.join(FORMATS)}, got '{one_line(error)}'"
            raise SamplesError(f"{self.path}: {detail}", Remedy("save it anew or take it out")) from error


def read_images(path: Path, classes: Classes | None = None) -> list[Image]:
    """Find the images of a folder, by name. None is opened yet.

    Parameters
    ----------
    path : Path
        It holds either images, which have no labels, or folders of images, called after their labels, numbers or
        names. Hidden files are skipped, and what `BESIDE` names; any other file is an error.
    classes : Classes, optional
        What labels mean. Without it they are left out.

    Raises
    ------
    SamplesError
        The folder cannot be read, holds no image, or anything else.

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
    if files and folders:
        detail = "expected images, or folders of them called after their labels, got both"
        raise SamplesError(f"{path}: {detail}: {files[0].name!r} and {folders[0].name!r}", Remedy("label all or none"))
    images = [Image(file) for file in files]
    images += [image for folder in folders for image in _of_label(folder, classes)]
    if not images:
        raise SamplesError(f"{path}: expected at least one image, {_endings()}, got none")
    return images


def _of_label(folder: Path, classes: Classes | None) -> Iterator[Image]:
    """The images of a folder that is called after their label."""
    files, folders = _contents(folder)
    if folders or not files:
        found = f"a folder in it, {folders[0].name!r}" if folders else "none"
        raise SamplesError(f"{folder}: expected images of one label, got {found}", Remedy("take it out"))
    try:
        label = None if classes is None else classes.number(classes.label(folder.name))
    except ValueError as error:
        raise SamplesError(f"{folder}: {error}") from error
    return (Image(file, label) for file in files)


def _contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images and the folders in a folder, by name."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SamplesError(f"{folder}: expected a folder of images, got '{error.strerror}'") from error
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if not entry.is_dir() and entry.name.lower() not in BESIDE]
    for file in files:
        if file.suffix.lower() not in ENDINGS or not file.is_file():
            raise SamplesError(
                f"{file}: expected an image, {_endings()}, got another file", Remedy("convert it or take it out")
            )
    return files, folders


def _endings() -> str:
    return ", ".join(f"*{ending}" for ending in ENDINGS)
