"""Model directory -> architecture, tokenizer or image processor; architecture + weights -> model."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.errors import BackendError, CheckpointError, Remedy
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.transformers_library import (
    import_pillow,
    import_transformers,
    load_weights,
    quiet_transformers,
    read_config,
    transformers_errors,
)

SUPPORTED_MODELS = "a model for sequence or image classification, or a causal language model"

OTHER_WEIGHTS = Remedy("use the model directory that was saved with these weights")
"""The remedy for weights that do not fit a model."""

SampleKind: TypeAlias = Literal["texts", "images"]
"""Samples that a model takes: a file of texts, or a folder of images."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model without weights, as its directory describes it.

    Parameters
    ----------
    directory : Path
        The directory of configuration, and tokenizer or image processor.
    config : transformers.PreTrainedConfig
        The model's configuration.
    model_class : type of transformers.PreTrainedModel
        The class of the model.
    classes : Classes or None
        The classes of a classifier; None for a causal language model.
    sample_kind : {"texts", "images"}
        The kind of samples that the model takes.
    """

    directory: Path
    config: Any
    model_class: Any
    classes: Classes | None
    sample_kind: SampleKind = "texts"

    def build(self, tensors: Mapping[str, Tensor], location: str, dtype: torch.dtype = torch.float32) -> Any:
        """Build the model with given weights, without dropout.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            The weights, under the names that the checkpoint has on disk: transformers renames, fuses and ties them.
            The model may share their memory.
        location : str
            Path of the weights, for messages.
        dtype : torch.dtype
            Dtype of all its weights.

        Returns
        -------
        transformers.PreTrainedModel
            The model, in evaluation mode.

        Raises
        ------
        CheckpointError
            Tensors of the model are missing, there are others, or shapes differ.
        """
        return load_weights(self.model_class, self.config, tensors, location, OTHER_WEIGHTS, dtype=dtype)

    def load(self, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Any:
        """Build the model with the weights of a checkpoint; see `build`.

        Parameters
        ----------
        checkpoint : Checkpoint
            The weights, all of which are read.
        dtype : torch.dtype
            Dtype of all weights of the model.
        """
        tensors = {name: tensor_from_bytes(checkpoint.read(name), spec) for name, spec in checkpoint.specs.items()}
        return self.build(tensors, checkpoint.location, dtype)


def model_directory(model: "str | os.PathLike[str] | None", fine_tune: Source) -> Path:
    """Return the directory of configuration, and tokenizer or image processor.

    Parameters
    ----------
    model : path, optional
        The directory, if the caller names one.
    fine_tune : path or mapping of tensors
        The fine-tune. By default its own directory is returned.

    Raises
    ------
    CheckpointError
        No directory is named, and the fine-tune is not one.
    """
    if model is not None:
        return Path(model)
    if not isinstance(fine_tune, (str, os.PathLike)) or not Path(fine_tune).is_dir():
        where = fine_tune if isinstance(fine_tune, (str, os.PathLike)) else "the fine-tune"
        detail = "expected a model directory with its config.json, got weights only"
        raise CheckpointError(f"{where}: {detail}", Remedy("name one with {model}"))
    return Path(fine_tune)


def read_architecture(directory: Path) -> Architecture:
    """Read the architecture from a model directory. Code in it is never run.

    Parameters
    ----------
    directory : Path
        The model directory.

    Raises
    ------
    CheckpointError
        It is not a model directory, or the model is not supported.
    BackendError
        The package transformers is not installed.
    """
    library = import_transformers()
    if not (directory / "config.json").is_file():
        detail = "expected a model directory with config.json, got none"
        raise CheckpointError(
            f"{directory}: {detail}", Remedy("copy that file there, or name the directory that has it")
        )
    where = str(directory / "config.json")
    config = read_config(directory)
    names = config.architectures or ["no name under 'architectures'"]
    # The class tells which samples the model takes, and what it predicts.
    takes_images = names[0] in _names("IMAGE_CLASSIFICATION")
    is_classifier = takes_images or names[0] in _names("SEQUENCE_CLASSIFICATION")
    model_class = getattr(library, names[0], None)
    if model_class is None or not (is_classifier or names[0] in _names("CAUSAL_LM")):
        raise CheckpointError(f"{where}: expected {SUPPORTED_MODELS}, got {names[0]}")
    if getattr(config, "quantization_config", None) is not None:
        raise CheckpointError(f"{where}: expected plain weights, got a quantization_config, which is not supported")
    classes = _classes(config, where) if is_classifier else None
    return Architecture(directory, config, model_class, classes, "images" if takes_images else "texts")


def load_tokenizer(architecture: Architecture) -> Any:
    """Load the tokenizer of a model directory.

    Parameters
    ----------
    architecture : Architecture
        The model directory and its configuration.

    Returns
    -------
    transformers.PreTrainedTokenizerBase
        The tokenizer.

    Raises
    ------
    CheckpointError
        There is none, or transformers cannot read it.
    """
    where = str(architecture.directory)
    with quiet_transformers(), transformers_errors(where, "a tokenizer that transformers can read"):
        return import_transformers().AutoTokenizer.from_pretrained(
            architecture.directory, config=architecture.config, local_files_only=True, trust_remote_code=False
        )


def load_image_processor(architecture: Architecture) -> Any:
    """Load the image processor of a model directory, which turns images into inputs of the model.

    Parameters
    ----------
    architecture : Architecture
        The model directory.

    Returns
    -------
    transformers.BaseImageProcessor
        The image processor.

    Raises
    ------
    CheckpointError
        There is none, or transformers cannot read it.
    BackendError
        Pillow is not installed, or torchvision, which some image processors need.
    """
    import_pillow()
    where = str(architecture.directory)
    with quiet_transformers(), transformers_errors(where, "an image processor that transformers can read"):
        try:
            return import_transformers().AutoImageProcessor.from_pretrained(
                architecture.directory, local_files_only=True, trust_remote_code=False
            )
        except (ImportError, ValueError) as error:
            # transformers has no exception of its own for this.
            if "dependencies: torchvision" not in str(error):
                raise
            detail = "expected an image processor that works with Pillow, got one that needs torchvision"
            raise BackendError(f"{where}: {detail}", Remedy("pip install torchvision")) from error


def _names(task: str) -> set[str]:
    """Return the names of all model classes that transformers has for a task."""
    from transformers.models.auto import modeling_auto

    # Some configurations have several classes.
    entries: Iterable[str | tuple[str, ...]] = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").values()
    return {name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)}


def _classes(config: Any, where: str) -> Classes:
    """Return the classes of a classifier, which must predict exactly one of several."""
    problem = getattr(config, "problem_type", None) or "single_label_classification"
    if problem != "single_label_classification" or config.num_labels < 2:
        found = f"{config.num_labels} of {problem}"
        raise CheckpointError(f"{where}: expected a classifier that chooses one of at least two labels, got {found}")
    return Classes(config.num_labels, {name: int(number) for name, number in config.label2id.items()})
