"""Samples: a file of texts or a folder of images, read and turned into batches for a model."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from dtscodec.errors import Remedy, SamplesError
from dtscodec.evaluation.architecture import Architecture, SampleKind, load_image_processor, load_tokenizer
from dtscodec.evaluation.image_batches import ImageBatcher
from dtscodec.evaluation.image_samples import ImageSample, read_images
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.evaluation.text_batches import TextBatcher
from dtscodec.evaluation.text_samples import TextSample, read_texts

Samples: TypeAlias = Sequence[TextSample] | Sequence[ImageSample]


def sample_kind(path: str | Path) -> SampleKind:
    """Return the kind of the samples at a path; a path that does not exist counts as texts.

    Parameters
    ----------
    path : path
        A file of texts, or a folder of images.

    Examples
    --------
    >>> sample_kind("/"), sample_kind("texts.txt")
    ('images', 'texts')
    """
    return "images" if os.path.isdir(path) else "texts"  # `Path.is_dir` may raise.


def read_samples(path: Path, classes: Classes | None = None) -> Samples:
    """Read the texts of a file, or list the images of a folder; see `read_texts` and `read_images`.

    Parameters
    ----------
    path : Path
        The file or the folder.
    classes : Classes, optional
        The classes that labels name; without it labels are ignored.

    Raises
    ------
    SamplesError
        The samples cannot be read.
    """
    return read_images(path, classes) if sample_kind(path) == "images" else read_texts(path, classes)


@dataclass(frozen=True, slots=True)
class PreparedSamples:
    """Samples that were read and checked, with the tokenizer or image processor for them; see `prepare_samples`.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the models that will run on them.
    samples : sequence of TextSample or ImageSample
        Samples of the kind that it takes.
    processor : transformers.PreTrainedTokenizerBase or transformers.BaseImageProcessor
        The architecture's tokenizer or image processor.
    """

    architecture: Architecture
    samples: Samples
    processor: Any

    def batches(self, model: Any, size: int, tokens: int | None = None) -> Iterator[SampleBatch]:
        """Yield batches of all samples for a model of the architecture.

        Parameters
        ----------
        model : transformers.PreTrainedModel
            The model.
        size : int
            Samples in a batch; 1 is used for texts that cannot be padded.
        tokens : int, optional
            Largest number of tokens in a batch of texts, with padding; longer texts are truncated to it.

        Raises
        ------
        SamplesError, CheckpointError
            The tokenizer or image processor cannot process a sample, or is not this model's.
        """
        images = [sample for sample in self.samples if isinstance(sample, ImageSample)]
        if images:
            return ImageBatcher(self.architecture, self.processor, model, size).batches(images)
        texts = [sample for sample in self.samples if isinstance(sample, TextSample)]
        return TextBatcher(self.architecture, self.processor, model, size, tokens).batches(texts)


def prepare_samples(architecture: Architecture, path: Path, classes: Classes | None = None) -> PreparedSamples:
    """Read samples of the kind that an architecture takes, and load its tokenizer or image processor.

    Errors of either are raised here, before a model is loaded.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the models that will run on the samples.
    path : Path
        A file of texts (`dtscodec.evaluation.text_samples.read_texts`), or a folder of images
        (`dtscodec.evaluation.image_samples.read_images`).
    classes : Classes, optional
        The classes that labels name; without it labels are ignored.

    Raises
    ------
    SamplesError
        The samples cannot be read, or are of the other kind.
    CheckpointError
        The tokenizer or image processor cannot be read.
    BackendError
        A package is not installed.
    """
    found = sample_kind(path)
    if path.exists() and found != architecture.sample_kind:
        words = {"texts": "a file of texts", "images": "a folder of images"}
        detail = (
            f"expected {words[architecture.sample_kind]} for a {architecture.model_class.__name__}, got {words[found]}"
        )
        raise SamplesError(f"{path}: {detail}", Remedy("give samples of that kind"))
    samples = read_samples(path, classes)
    processor = load_image_processor(architecture) if found == "images" else load_tokenizer(architecture)
    # Texts are read already; images have only been listed.
    for sample in samples:
        if isinstance(sample, ImageSample):
            # Opened only to check it: of many images only a batch at a time fits in memory.
            sample.open()
    return PreparedSamples(architecture, samples, processor)
