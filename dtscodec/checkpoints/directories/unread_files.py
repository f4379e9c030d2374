"""Files of a model directory that hold weights but are not read, each with the reason."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dtscodec.checkpoints.directories.choose_weights import framework_of
from dtscodec.checkpoints.directories.file_names import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    DIFFUSERS,
    SHARD,
    TRANSFORMERS,
    stem_of,
    variant_of,
)
from dtscodec.checkpoints.foreign_file import other_framework
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.format.naming import is_shard_index
from dtscodec.storage.listing import Listing, list_directory

_ANY_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".distcp")
_OF_TRAINING = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|sampler)[._].*")
_OTHER_FOLDERS = ("onnx", "openvino", "coreml", "gguf", "tensorrt", "original", "tf_model", "flax_model")


def unread_files(
    listing: Listing, chosen: str | None, read: frozenset[str], config: Mapping[str, Any]
) -> Iterator[PassedOverFile]:
    """Yield the files of one directory that hold weights but were not read.

    Parameters
    ----------
    listing : Listing
        Its files and folders.
    chosen : str or None
        The file that was opened; None if only folders of modules have weights.
    read : frozenset of str
        The files in it that were read.
    config : mapping
        Content of its ``config.json``.
    """
    for name in listing.files:
        if name not in read and (reason := _reason(name, listing.files, chosen, config)):
            yield PassedOverFile(name, reason)


def unread_folders(directory: Path, listing: Listing, modules: Iterable[str]) -> Iterator[PassedOverFile]:
    """Yield the folders of a directory that hold weights but were not read.

    Parameters
    ----------
    directory : Path
        The model directory.
    listing : Listing
        Its files and folders.
    modules : iterable of str
        Folders of modules, which were read.

    Raises
    ------
    Exception
        Errors of the storage, when folders are listed.
    """
    # A directory of packs may have its base in it, and the packs in a folder.
    skipped = {folder.split("/")[0] for folder in modules}
    skipped |= {"packs"} if "dtscodec.json" in listing.files else set()
    for folder in listing.folders:
        if folder in skipped or folder.startswith("."):
            continue
        if any(is_weight_file(name) for name in list_directory(directory / folder).files):
            yield PassedOverFile(f"{folder}/", _reason_of_folder(folder))


def is_weight_file(name: str) -> bool:
    """Return whether a file of this name holds weights, of this or another program.

    >>> is_weight_file("model.safetensors"), is_weight_file("model.onnx"), is_weight_file("tokenizer.json")
    (True, True, False)
    """
    return (name.endswith(_ANY_ENDINGS) or other_framework(name) is not None) and not is_training_state(name)


def is_training_state(name: str) -> bool:
    """Return whether a file of this name holds the state of a training, such as the optimizer's.

    >>> is_training_state("optimizer.pt"), is_training_state("rng_state_0.pth"), is_training_state("model.pt")
    (True, True, False)
    """
    return bool(_OF_TRAINING.fullmatch(name))


def _reason(name: str, files: tuple[str, ...], chosen: str | None, config: Mapping[str, Any]) -> str | None:
    """Return the reason why a file was not read; None for a file without weights."""
    if name in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS):
        return _reason_of_adapter(files)
    if is_training_state(name) and name.endswith(_ANY_ENDINGS):
        return "state of the training"
    if program := other_framework(name):
        return f"for {program}"
    if not (name.endswith(_ANY_ENDINGS) or is_shard_index(name)):
        return None
    if variant := variant_of(name):
        return f"loaded only as the variant {variant!r}"
    if SHARD.search(name):
        # The shards of another index are passed over with it.
        index = next((file for file in files if is_shard_index(file) and stem_of(file) == stem_of(name)), None)
        return None if index not in (None, chosen) else "no index lists it"
    if name.startswith("consolidated"):
        return "in the layout of Mistral's and Meta's own programs"
    return _reason_of_second_answer(name, chosen, config)


def _reason_of_second_answer(name: str, chosen: str | None, config: Mapping[str, Any]) -> str:
    """Return the reason why a file was not read that could have been chosen."""
    framework = framework_of(config, chosen or "")
    if chosen is None or name not in TRANSFORMERS + DIFFUSERS:
        return f"no file that {framework} looks for"
    by_name = f"name {name} itself to take it, or " if is_shard_index(name) else ""
    return f"{framework} loads {chosen} first: {by_name}remove {chosen} if it is the older one"


def _reason_of_adapter(files: tuple[str, ...]) -> str:
    if any(name in files for name in ADAPTER_WEIGHTS):
        return "an adapter, which is imported by itself"
    return "without an adapter's weights it would keep transformers from loading the model"


def _reason_of_folder(folder: str) -> str:
    if re.fullmatch(r"checkpoint-\d+|epoch.*|step.*", folder):
        return "another checkpoint of the training"
    if folder in _OTHER_FOLDERS:
        return "the same model for another program"
    return "a folder that no modules.json lists"
