"""The packages transformers and Pillow: imported on first use, silent, with errors of one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dtscodec.errors import BackendError, CheckpointError, DtsError, Remedy
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
    """Return a context in which transformers prints no reports and progress bars; it restores the settings."""
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
    """Return a context that turns errors of transformers into a `CheckpointError` of one line.

    Only transformers may be called in it, since any exception is converted, but for those of dtscodec and those about
    memory.

    Parameters
    ----------
    where : str
        The file, directory or model concerned.
    expected : str
        What was expected there.

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
        if re.search("out of memory|allocate memory", str(error)):
            raise
        raise CheckpointError(f"{where}: expected {expected}, got '{one_line(error)}'") from error
