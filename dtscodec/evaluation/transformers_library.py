"""The package transformers, and Pillow for it, as we use them: on demand, quiet, and with errors as one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dtscodec.errors import BackendError, CheckpointError, DtsError, Remedy
from dtscodec.messages import one_line

OLDEST = 5
"""The first major version that takes a state dict as `model.py` gives it."""


def import_transformers() -> Any:
    """The package, imported on first use.

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
    """The package Pillow (``PIL``), imported on first use.

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
    """Keep transformers from printing reports and bars of its own inside the block; restore its settings after it."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    log = import_transformers().utils.logging
    level, has_bars, are_hub_bars_off = log.get_verbosity(), log.is_progress_bar_enabled(), are_progress_bars_disabled()
    log.set_verbosity_error()
    log.disable_progress_bar()  # Those of huggingface_hub with them.
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
    """Turn whatever transformers raises inside the block into one line. Nothing else may be called in it.

    Raises
    ------
    CheckpointError
        For any error but want of memory, which is told elsewhere.
    """
    try:
        yield
    except (DtsError, MemoryError):
        raise
    except Exception as error:  # It raises errors of any kind, with texts of many lines.
        if re.search("out of memory|allocate memory", str(error)):
            raise
        raise CheckpointError(f"{where}: expected {expected}, got '{one_line(error)}'") from error
