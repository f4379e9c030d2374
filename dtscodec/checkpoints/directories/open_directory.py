"""Opening a model directory."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.containers.exact_pack import PackedCheckpoint
from dtscodec.checkpoints.directories.choose_weights import choose_weights
from dtscodec.checkpoints.directories.file_names import stem_of
from dtscodec.checkpoints.directories.model_directory import ModelDirectory
from dtscodec.checkpoints.directories.module_folders import module_folders, read_json
from dtscodec.checkpoints.directories.no_weights_error import no_weights_error, pipeline_error
from dtscodec.checkpoints.directories.unread_files import unread_files, unread_folders
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.errors import CheckpointError
from dtscodec.format.weight_files import DEFAULT_STEM
from dtscodec.storage.listing import Listing, list_directory
from dtscodec.storage.storage_errors import read_errors

Open = Callable[[Path], Checkpoint]
"""Opens a file of weights, or an index with its shards."""


def open_directory(directory: Path, open_file: Open, chosen: str | None = None) -> ModelDirectory:
    """Open a model directory: the weights that its framework loads, and those in folders of modules.

    Parameters
    ----------
    directory : Path
        The directory, local or remote.
    open_file : callable
        Opens a file of weights, or an index.
    chosen : str, optional
        The file to open for the model itself, where the user named it.

    Raises
    ------
    CheckpointError
        The directory has no weights that can be read, or several files could be meant.
    """
    with read_errors(directory):
        listing = list_directory(directory)
    # A user who names a file knows of the others.
    config = _config(directory, listing) if chosen is None else {}
    own = chosen or _choose(directory, listing, config)
    parts = _weights_of_modules(directory, listing)
    if own is None and not parts:
        with read_errors(directory):
            raise no_weights_error(directory, listing)
    # If one cannot be opened, those opened before are closed.
    with ExitStack() as stack:
        opened = stack.enter_context(open_file(directory / own)) if own else None
        folders = {folder: stack.enter_context(open_file(path)) for folder, path in parts.items()}
        find = partial(_passed_over, directory, listing, config, own, opened, folders) if chosen is None else tuple
        model = ModelDirectory(directory, opened, folders, _stem(own, opened), find)
        stack.pop_all()
        return model


def is_chosen(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint is the one that its directory's name opens.

    Parameters
    ----------
    checkpoint : Checkpoint
        An open checkpoint.

    Raises
    ------
    CheckpointError
        The directory cannot be listed.
    """
    directory = checkpoint.directory
    if directory is None:
        return False
    with read_errors(directory):
        listing = list_directory(directory)
    try:
        own = _choose(directory, listing, _config(directory, listing))
    except CheckpointError:  # Several files could be meant.
        return False
    return own in checkpoint.weight_files if own else checkpoint.is_directory


def _choose(directory: Path, listing: Listing, config: dict[str, Any]) -> str | None:
    with read_errors(directory):
        if error := pipeline_error(directory, listing):
            raise error
    return choose_weights(listing.files, config, str(directory))


def _config(directory: Path, listing: Listing) -> dict[str, Any]:
    """Return the content of a directory's ``config.json``; empty if it has none that can be read."""
    if "config.json" not in listing.files:
        return {}
    try:
        content = read_json(directory / "config.json")
    except CheckpointError:  # It is only a hint here.
        return {}
    return content if isinstance(content, dict) else {}


def _weights_of_modules(directory: Path, listing: Listing) -> dict[str, Path]:
    """Return the file or index to open in each folder of a module that has weights, by folder."""
    found = {}
    for folder in module_folders(directory, listing):
        inside = directory / folder
        with read_errors(inside):
            inner = list_directory(inside) if inside.is_dir() else Listing((), ())
        # A configuration without weights is an ordinary module, such as pooling.
        if own := choose_weights(inner.files, _config(inside, inner), str(inside)):
            found[folder] = inside / own
    return found


def _stem(own: str | None, opened: Checkpoint | None) -> str:
    # A pack stores the stem of its checkpoint.
    if isinstance(opened, PackedCheckpoint):
        return opened.stem
    return stem_of(own) if own else DEFAULT_STEM


def _passed_over(
    directory: Path,
    listing: Listing,
    config: dict[str, Any],
    own: str | None,
    opened: Checkpoint | None,
    folders: dict[str, Checkpoint],
) -> tuple[PassedOverFile, ...]:
    """Return the files with weights that were not read, in the directory and in folders of modules."""
    read = opened.weight_files if opened else frozenset[str]()
    found = list(unread_files(listing, own, read, config))
    for folder, part in folders.items():
        inside = directory / folder
        with read_errors(inside):
            inner = list_directory(inside)
        chosen = part.location.split("/")[-1]
        others = unread_files(inner, chosen, part.weight_files, _config(inside, inner))
        found += [PassedOverFile(f"{folder}/{entry.file}", entry.reason) for entry in others]
    with read_errors(directory):
        return (*found, *unread_folders(directory, listing, folders))
