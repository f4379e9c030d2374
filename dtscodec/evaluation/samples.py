"""What a model is tried on: a file of texts, or a folder of images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from dtscodec.evaluation.images import Image, read_images
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.texts import Text, read_texts

SampleKind: TypeAlias = Literal["texts", "images"]
Samples: TypeAlias = Sequence[Text] | Sequence[Image]


def sample_kind(path: str | Path) -> SampleKind:
    """What the samples at a path are.

    >>> sample_kind("/"), sample_kind("texts.txt")
    ('images', 'texts')
    """
    return "images" if os.path.isdir(path) else "texts"  # Unlike those of `Path` it raises nothing.


def read_samples(path: Path, classes: Classes | None = None) -> Samples:
    """Texts of a file, or images of a folder; see `read_texts` and `read_images`."""
    return read_images(path, classes) if sample_kind(path) == "images" else read_texts(path, classes)
