"""A model directory and samples -> batches for models of its kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtscodec.errors import Remedy, SamplesError
from dtscodec.evaluation.architecture import Architecture, load_image_processor, load_tokenizer
from dtscodec.evaluation.image_batches import ImageBatcher
from dtscodec.evaluation.images import Image
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.sample_batch import SampleBatch
from dtscodec.evaluation.samples import Samples, read_samples, sample_kind
from dtscodec.evaluation.text_batches import TextBatcher
from dtscodec.evaluation.texts import Text


@dataclass(frozen=True, slots=True)
class PreparedSamples:
    """Samples, with what makes them a model's inputs: all that may be wrong with either is known before models load.

    Parameters
    ----------
    architecture : Architecture
    samples : sequence of Text or Image
        Of the kind that it takes.
    preparer : transformers.PreTrainedTokenizerBase or transformers.BaseImageProcessor
        Its tokenizer or image processor.
    """

    architecture: Architecture
    samples: Samples
    preparer: Any

    def batches(self, model: Any, size: int) -> Iterator[SampleBatch]:
        """All samples, some at a time, for a model of the architecture.

        Parameters
        ----------
        model : transformers.PreTrainedModel
        size : int
            Samples in a batch, where they can share one.

        Raises
        ------
        SamplesError, CheckpointError
            A sample is none that tokenizer or image processor can take, or they are not this model's.
        """
        images = [sample for sample in self.samples if isinstance(sample, Image)]
        if images:
            return ImageBatcher(self.architecture, self.preparer, model, size).batches(images)
        texts = [sample for sample in self.samples if isinstance(sample, Text)]
        return TextBatcher(self.architecture, self.preparer, model, size).batches(texts)


def prepare_samples(architecture: Architecture, path: Path, classes: Classes | None = None) -> PreparedSamples:
    """Read samples that an architecture takes.

    Parameters
    ----------
    architecture : Architecture
    path : Path
        A file of texts (`dtscodec.evaluation.texts.read_texts`), or a folder of images
        (`dtscodec.evaluation.images.read_images`).
    classes : Classes, optional
        What labels mean. Without it they are left out.

    Raises
    ------
    SamplesError
        They cannot be read, or are of the other kind.
    CheckpointError
        Tokenizer or image processor cannot be read.
    BackendError
        A package that they need is not there.
    """
    found = sample_kind(path)
    if path.exists() and found != architecture.sample_kind:
        words = {"texts": "a file of texts", "images": "a folder of images"}
        detail = (
            f"expected {words[architecture.sample_kind]} for a {architecture.model_class.__name__}, got {words[found]}"
        )
        raise SamplesError(f"{path}: {detail}", Remedy("name another model directory with {model}"))
    samples = read_samples(path, classes)
    preparer = load_image_processor(architecture) if found == "images" else load_tokenizer(architecture)
    for sample in samples:
        if isinstance(sample, Image):
            sample.open()  # And let go: of many only a batch at a time can stay in memory.
    return PreparedSamples(architecture, samples, preparer)
