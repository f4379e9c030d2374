"""Choose the file of weights in a model directory: the one that its framework loads."""

from collections.abc import Iterable, Mapping
from typing import Any

from dtscodec.checkpoints.directories.file_names import ADAPTER_WEIGHTS, DIFFUSERS, SHARD, TRANSFORMERS, variant_of
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.format.naming import is_shard_index
from dtscodec.messages import listed

_NAME_FILE = Remedy("name one of them by its own path")


def choose_weights(files: Iterable[str], config: Mapping[str, Any], where: str) -> str | None:
    """Return the name of the file to open: weights, or an index of shards; None if there is none.

    Parameters
    ----------
    files : iterable of str
        Names of the directory's files.
    config : mapping
        Content of its ``config.json``; empty if it has none.
    where : str
        The directory, for messages.

    Raises
    ------
    CheckpointError
        Several files could be meant, or shards have no index.

    Examples
    --------
    >>> choose_weights(["model.fp16.safetensors", "model.safetensors", "pytorch_model.bin"], {}, "here")
    'model.safetensors'
    """
    names = sorted(set(files) - set(ADAPTER_WEIGHTS))
    # transformers loads the file that the configuration names, if it does.
    explicit = config.get("transformers_weights")
    if explicit in names:
        return str(explicit)
    if usual := next((name for name in usual_order(config) if name in names), None):
        return usual
    # Without weights of the default names: those of a variant, then any index, then any file.
    return _choose_variant(names, config, where) or _choose_index(names, where) or _choose_file(names, where)


def framework_of(config: Mapping[str, Any], chosen: str = "") -> str:
    """Return the name of the framework that loads a directory, for messages.

    Parameters
    ----------
    config : mapping
        Content of its ``config.json``.
    chosen : str
        The file that was chosen.
    """
    is_diffusers = "_class_name" in config or chosen.startswith("diffusion_pytorch_model")
    return "diffusers" if is_diffusers else "transformers"


def usual_order(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the usual names of weight files in the order in which a directory's framework looks for them.

    Parameters
    ----------
    config : mapping
        Content of its ``config.json``; that of a diffusers component has ``_class_name``.
    """
    return DIFFUSERS + TRANSFORMERS if framework_of(config) == "diffusers" else TRANSFORMERS + DIFFUSERS


def _choose_variant(names: list[str], config: Mapping[str, Any], where: str) -> str | None:
    """Return the file of the only variant."""
    found = {name: variant for name in names if (variant := variant_of(name))}
    if len(variants := sorted(set(found.values()))) > 1:
        detail = f"expected weights of one variant, got those of {listed(variants, 4)}"
        raise CheckpointError(f"{where}: {detail}", Remedy.literal(f"name a file by its own path, as {min(found)}"))
    order = usual_order(config)
    return min(found, key=lambda name: (_rank(name, order), name), default=None)


def _rank(name: str, order: tuple[str, ...]) -> int:
    """Return the position of a variant's file among the usual names, without the variant."""
    plain = name.replace(f".{variant_of(name)}", "", 1)
    return order.index(plain) if plain in order else len(order)


def _choose_index(names: list[str], where: str) -> str | None:
    """Return the only index of shards."""
    found = [name for name in names if is_shard_index(name)]
    # An index in the layout of Mistral's own programs comes last.
    found = [name for name in found if not _is_consolidated(name)] or found
    if len(found) > 1:
        raise CheckpointError(f"{where}: expected one index of shards, got {listed(found, 4)}", _NAME_FILE)
    return found[0] if found else None


def _choose_file(names: list[str], where: str) -> str | None:
    """Return the only safetensors file."""
    found = [name for name in names if name.endswith(".safetensors")]
    found = [name for name in found if not _is_consolidated(name)] or found
    if shards := [name for name in found if (match := SHARD.search(name)) and int(match[2]) > 1]:
        detail = f"expected the index of the shards, got only {listed(shards, 3)}"
        raise CheckpointError(f"{where}: {detail}", Remedy("copy their *.index.json and all shards into the directory"))
    if len(found) > 1:
        detail = f"expected {TRANSFORMERS[0]} or exactly one *.safetensors, got {len(found)} such files: "
        raise CheckpointError(f"{where}: {detail}{listed(found, 4)}", _NAME_FILE)
    return found[0] if found else None


def _is_consolidated(name: str) -> bool:
    return name.startswith("consolidated")
