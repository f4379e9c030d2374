"""Calls of transformers: configuration, model class, weights. Imported on first use, quiet, errors of one line."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dtscodec.errors import BackendError, CheckpointError, DtsError, Remedy
from dtscodec.evaluation.loading_report import check_loading_report
from dtscodec.messages import one_line

OLDEST = 5
"""The first major version whose `from_pretrained` takes a state dict as `load_weights` passes it."""


def import_transformers() -> Any:
    """Return the package transformers, imported on first use.

    Raises
    ------
    BackendError
        It is not installed, or too old.
    """
    remedy = Remedy("pip install 'dtscodec[transformers]'")
    try:
        import transformers as package
    except ImportError as error:
        raise BackendError(f"transformers: expected the package, got '{one_line(error)}'", remedy) from error
    version = package.__version__
    if int(version.partition(".")[0]) < OLDEST:
        raise BackendError(f"transformers: expected version {OLDEST} or newer, got {version}", remedy)
    return package


def import_pillow() -> Any:
    """Return the package Pillow (``PIL``), imported on first use.

    Raises
    ------
    BackendError
        It is not installed.
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise BackendError(
            f"Pillow: expected the package, got '{one_line(error)}'", Remedy("pip install 'dtscodec[images]'")
        ) from error
    return PIL


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers print no reports and progress bars while the context lasts, then restore its settings."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    log = import_transformers().utils.logging
    level, has_bars, are_hub_bars_off = log.get_verbosity(), log.is_progress_bar_enabled(), are_progress_bars_disabled()
    log.set_verbosity_error()
    log.disable_progress_bar()  # This disables those of huggingface_hub, too.
    try:
        yield
    finally:
        log.set_verbosity(level)
        if has_bars:
            log.enable_progress_bar()
        elif not are_hub_bars_off:
            enable_progress_bars()


@contextmanager
def transformers_errors(where: str, expected: str) -> Iterator[None]:
    """Turn errors of transformers into a `CheckpointError` of one line while the context lasts.

    Any exception is converted, except those of dtscodec and those about memory, so the context must contain calls of
    transformers only.

    Parameters
    ----------
    where : str
        The file, directory or model concerned.
    expected : str
        The content that was expected there, for the message.

    Raises
    ------
    CheckpointError
        In place of the exception.
    """
    try:
        yield
    except (DtsError, MemoryError):
        raise
    except Exception as error:  # transformers raises exceptions of any kind, with texts of many lines.
        # Errors about memory of other classes are known by their text only.
        if re.search("out of memory|allocate memory", str(error)):
            raise
        raise CheckpointError(f"{where}: expected {expected}, got '{one_line(error)}'") from error


def read_config(directory: Path, location: str | None = None, remedy: Remedy | None = None) -> Any:
    """Read the configuration in a model directory. Code in the directory is never run.

    Parameters
    ----------
    directory : Path
        The model directory.
    location : str, optional
        Where the configuration is, for messages; by default its path.
    remedy : Remedy, optional
        The remedy for a configuration of diffusers.

    Raises
    ------
    CheckpointError
        transformers cannot read it.
    BackendError
        The package transformers is not installed.
    """
    library = import_transformers()
    where = location or str(directory / "config.json")
    _check_library(directory / "config.json", where, remedy)
    with quiet_transformers(), transformers_errors(where, "a configuration that transformers knows"):
        return library.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def _check_library(path: Path, location: str, remedy: Remedy | None) -> None:
    """Raise CheckpointError if a configuration is one of diffusers, which has no `model_type`."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return  # transformers will say why it cannot be read.
    if isinstance(document, dict) and "_class_name" in document and "model_type" not in document:
        got = f"{document['_class_name']!s:.80} of diffusers"
        raise CheckpointError(f"{location}: expected a model of transformers, got {got}", remedy)


def model_class_of(config: Any, location: str, remedy: Remedy) -> Any:
    """Return the model class that a configuration names.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        The configuration.
    location : str
        Path of the configuration, for messages.
    remedy : Remedy
        The remedy if there is no such class.

    Raises
    ------
    CheckpointError
        It names no class, or one that transformers does not have.
    """
    model_class = getattr(import_transformers(), (config.architectures or [""])[0], None)
    if model_class is None:
        detail = f"expected a class of transformers under 'architectures', got {config.architectures}"
        raise CheckpointError(f"{location}: {detail}", remedy)
    return model_class


def concrete_class(model_class: Any, config: Any, location: str) -> Any:
    """Return the class that one such as `AutoModelForCausalLM` chooses by a configuration, or the class itself.

    Parameters
    ----------
    model_class : type
        A class of models, or one that chooses.
    config : transformers.PreTrainedConfig
        The configuration.
    location : str
        Where the model comes from, for messages.

    Raises
    ------
    CheckpointError
        It has no class for the configuration.
    """
    classes = getattr(model_class, "_model_mapping", None)
    if classes is None:
        return model_class
    if type(config) not in classes:
        detail = f"expected a configuration for {model_class.__name__}, got a {type(config).__name__}"
        raise CheckpointError(f"{location}: {detail}", Remedy("give another {model_class}"))
    found = classes[type(config)]
    return found[0] if isinstance(found, tuple | list) else found


def load_weights(
    model_class: Any, config: Any, state: Mapping[str, Any], location: str, remedy: Remedy, **options: Any
) -> Any:
    """Build a model with given weights.

    Parameters
    ----------
    model_class : type of transformers.PreTrainedModel
        The class of the model.
    config : transformers.PreTrainedConfig
        Its configuration.
    state : mapping of str to Tensor
        Tensors, or objects that can be sliced like them, under the names that the checkpoint has on disk: transformers
        renames, fuses and ties them. The model may share their memory.
    location : str
        Path of the weights, for messages.
    remedy : Remedy
        The remedy if they do not fit the model.
    **options
        Further arguments of `from_pretrained` of transformers.

    Returns
    -------
    transformers.PreTrainedModel
        The model, in evaluation mode.

    Raises
    ------
    CheckpointError
        Tensors of the model are missing, there are others, or shapes differ.
    """
    with quiet_transformers(), transformers_errors(location, f"weights of a {model_class.__name__}"):
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            local_files_only=True,
            ignore_mismatched_sizes=True,  # The loading report has them.
            output_loading_info=True,
            **options,
        )
    check_loading_report(report, model_class.__name__, location, remedy)
    return model
