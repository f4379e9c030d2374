"""Samples: a file of texts, or a folder of images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from dtscodec.evaluation.images import ImageSample, read_images
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.texts import TextSample, read_texts

SampleKind: TypeAlias = Literal["texts", "images"]
Samples: TypeAlias = Sequence[TextSample] | Sequence[ImageSample]


def sample_kind(path: str | Path) -> SampleKind:
    """Return the kind of the samples at a path; a path that does not exist counts as texts.

    >>> sample_kind("/"), sample_kind("texts.txt")
    ('images', 'texts')
    """
    return "images" if os.path.isdir(path) else "texts"  # `Path.is_dir` may raise.


def read_samples(path: Path, classes: Classes | None = None) -> Samples:
    """Return the texts of a file or the images of a folder; see `read_texts` and `read_images`."""
    return read_images(path, classes) if sample_kind(path) == "images" else read_texts(path, classes)
