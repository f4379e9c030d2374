"""A model directory's architecture, and models of it with given weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.errors import BackendError, CheckpointError, Remedy
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.samples import SampleKind
from dtscodec.evaluation.transformers_library import (
    import_pillow,
    import_transformers,
    quiet_transformers,
    transformers_errors,
)
from dtscodec.evaluation.weight_loading import load_weights, read_config

SUPPORTED = "a model for sequence or image classification, or a causal language model"

NAME_MODEL = Remedy("name one with {model}")


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a model directory says of its model, weights apart.

    Parameters
    ----------
    directory : Path
        Where configuration, and tokenizer or image processor lie.
    config : transformers.PreTrainedConfig
        Its configuration.
    model_class : type of transformers.PreTrainedModel
        The class of the model.
    classes : Classes, optional
        What it chooses from; None for a causal language model.
    sample_kind : {"texts", "images"}
        What it is given.
    """

    directory: Path
    config: Any
    model_class: Any
    classes: Classes | None
    sample_kind: SampleKind = "texts"

    def build(self, tensors: Mapping[str, Tensor], location: str) -> Any:
        """A model with these weights, in float32 and without dropout.

        Parameters
        ----------
        tensors : mapping
            Under the names that the checkpoint has on disk: renaming, fusing and tying are left to transformers. The
            model may use their memory.
        location : str
            Where they are from, for messages.

        Raises
        ------
        CheckpointError
            They are not all the tensors of this model, and no others.
        """
        remedy = Remedy("name its own model directory with {model}")
        return load_weights(self.model_class, self.config, tensors, location, remedy, dtype=torch.float32)

    def load(self, checkpoint: Checkpoint) -> Any:
        """A model with all tensors of a checkpoint; see `build`."""
        tensors = {name: tensor_from_bytes(checkpoint.read(name), spec) for name, spec in checkpoint.specs.items()}
        return self.build(tensors, checkpoint.location)


def read_architecture(directory: Path) -> Architecture:
    """Read the architecture that a model directory describes. Code that lies there is never run.

    Raises
    ------
    CheckpointError
        It is no model directory, or that of a model that is not supported.
    BackendError
        The package transformers is not there.
    """
    library = import_transformers()
    if not (directory / "config.json").is_file():
        detail = "expected a model directory with config.json, got none"
        raise CheckpointError(f"{directory}: {detail}", NAME_MODEL)
    where = str(directory / "config.json")
    config = read_config(directory)
    names = config.architectures or ["no name under 'architectures'"]
    sees = names[0] in _names("IMAGE_CLASSIFICATION")
    is_classifier = sees or names[0] in _names("SEQUENCE_CLASSIFICATION")
    kind = getattr(library, names[0], None)
    if kind is None or not (is_classifier or names[0] in _names("CAUSAL_LM")):
        raise CheckpointError(f"{where}: expected {SUPPORTED}, got {names[0]}")
    if getattr(config, "quantization_config", None) is not None:
        raise CheckpointError(f"{where}: expected plain weights, got a quantization_config, which is not supported")
    classes = _classes(config, where) if is_classifier else None
    return Architecture(directory, config, kind, classes, "images" if sees else "texts")


def load_tokenizer(architecture: Architecture) -> Any:
    """The tokenizer of a model directory.

    Raises
    ------
    CheckpointError
        There is none, or it cannot be read.
    """
    where = str(architecture.directory)
    with quiet_transformers(), transformers_errors(where, "a tokenizer that transformers can read"):
        return import_transformers().AutoTokenizer.from_pretrained(
            architecture.directory, config=architecture.config, local_files_only=True, trust_remote_code=False
        )


def load_image_processor(architecture: Architecture) -> Any:
    """The image processor of a model directory: what makes a model's inputs of pictures.

    Raises
    ------
    CheckpointError
        There is none, or it cannot be read.
    BackendError
        Pillow is not there, or torchvision, which some need.
    """
    import_pillow()
    where = str(architecture.directory)
    with quiet_transformers(), transformers_errors(where, "an image processor that transformers can read"):
        try:
            return import_transformers().AutoImageProcessor.from_pretrained(
                architecture.directory, local_files_only=True, trust_remote_code=False
            )
        except (ImportError, ValueError) as error:
            if "dependencies: torchvision" not in str(error):
                raise
            detail = "expected an image processor that works with Pillow, got one that needs torchvision"
            raise BackendError(f"{where}: {detail}", Remedy("pip install torchvision")) from error


def max_tokens(model: Any, tokenizer: Any) -> int | None:
    """How many tokens of a text a model takes: as many as it has positions, and its tokenizer allows."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind the padding's.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= module.padding_idx + 1
    # A tokenizer that knows no bound says 10^30.
    bounds = [int(bound) for bound in (positions, tokenizer.model_max_length) if 0 < bound < 10**9]
    return min(bounds, default=None)


def _names(task: str) -> set[str]:
    """Names of all classes that transformers has for a task."""
    from transformers.models.auto import modeling_auto

    entries: Iterable[str | tuple[str, ...]] = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").values()
    return {name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)}


def _classes(config: Any, where: str) -> Classes:
    """The classes of a classifier that chooses one of several."""
    problem = getattr(config, "problem_type", None) or "single_label_classification"
    if problem != "single_label_classification" or config.num_labels < 2:
        found = f"{config.num_labels} of {problem}"
        raise CheckpointError(f"{where}: expected a classifier that chooses one of at least two labels, got {found}")
    return Classes(config.num_labels, {name: int(number) for name, number in config.label2id.items()})
