"""Weights under the names of a checkpoint -> a model of transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.transformers_library import import_transformers, quiet_transformers, transformers_errors
from dtscodec.messages import listed


def read_config(directory: Path) -> Any:
    """The configuration in a model directory. Code that lies there is never run.

    Raises
    ------
    CheckpointError
        transformers does not know it.
    BackendError
        The package transformers is not there.
    """
    library = import_transformers()
    with (
        quiet_transformers(),
        transformers_errors(str(directory / "config.json"), "a configuration that transformers knows"),
    ):
        return library.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def model_class_of(config: Any, location: str, remedy: Remedy) -> Any:
    """The class of transformers that a configuration names.

    Raises
    ------
    CheckpointError
        It names none, or one that transformers does not have.
    """
    kind = getattr(import_transformers(), (config.architectures or [""])[0], None)
    if kind is None:
        detail = f"expected a class of transformers under 'architectures', got {config.architectures}"
        raise CheckpointError(f"{location}: {detail}", remedy)
    return kind


def load_weights(kind: Any, config: Any, state: Mapping[str, Any], location: str, remedy: Remedy, **how: Any) -> Any:
    """A model with these weights.

    Parameters
    ----------
    kind : type of transformers.PreTrainedModel
    config : transformers.PreTrainedConfig
    state : mapping
        Tensors, or what can be sliced like them, under the names that the checkpoint has on disk: renaming, fusing and
        tying are left to transformers. The model may use their memory.
    location : str
        Where they are from, for messages.
    remedy : Remedy
        What to do if they do not fit.
    **how
        As for `from_pretrained` of transformers.

    Raises
    ------
    CheckpointError
        They are not all the tensors of this model, and no others.
    """
    with quiet_transformers(), transformers_errors(location, f"weights of a {kind.__name__}"):
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            local_files_only=True,
            ignore_mismatched_sizes=True,  # They are reported instead.
            output_loading_info=True,
            **how,
        )
    problems = _problems(report)
    if problems:
        raise CheckpointError(f"{location}: expected the tensors of a {kind.__name__}, got {problems}", remedy)
    return model


def _problems(report: Mapping[str, Any]) -> str:
    """What a loading report objects to; empty if it does not."""
    shapes = [(name, f"{list(got)} instead of {list(want)}") for name, got, want in report["mismatched_keys"]]
    found = [
        ("no", sorted(map(repr, report["missing_keys"]))),
        ("also", sorted(map(repr, report["unexpected_keys"]))),
        ("", sorted(f"{name!r} of {shape}" for name, shape in shapes)),
    ]
    return ", and ".join(f"{word} {listed(names, 3)}".strip() for word, names in found if names)
