"""Images + image processor -> batches that a model takes."""

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

import torch

from dtscodec.evaluation.architecture import Architecture
from dtscodec.evaluation.image_samples import ImageSample
from dtscodec.evaluation.sample_batches import SampleBatch, label_tensor
from dtscodec.evaluation.transformers_library import transformers_errors


class ImageBatcher:
    """Turns images into batches by an image processor.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the model.
    processor : transformers.BaseImageProcessor
        The image processor.
    model : transformers.PreTrainedModel
        The model that the batches are for.
    size : int
        Images in a batch.
    """

    def __init__(self, architecture: Architecture, processor: Any, model: Any, size: int) -> None:
        self._directory, self._processor, self._size = architecture.directory, processor, size
        self._parameters = signature(model.forward).parameters

    def batches(self, images: Sequence[ImageSample]) -> Iterator[SampleBatch]:
        """Yield batches of all images, in order. At most one batch of them is in memory.

        Parameters
        ----------
        images : sequence of ImageSample
            The images.

        Raises
        ------
        SamplesError
            An image cannot be read.
        CheckpointError
            The image processor fails, or makes tensors of different shapes.
        """
        for start in range(0, len(images), self._size):
            yield self._batch(images[start : start + self._size])

    def _batch(self, images: Sequence[ImageSample]) -> SampleBatch:
        pictures = [image.open() for image in images]
        with transformers_errors(str(self._directory), "an image processor that makes pictures of one size of these"):
            made = dict(self._processor(pictures, return_tensors="pt"))
        # Only what the model's `forward` takes.
        inputs = {name: tensor for name, tensor in made.items() if name in self._parameters}
        return SampleBatch(len(images), inputs, torch.arange(len(images)), label_tensor(images))
