"""A progress bar over bytes, on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with bytes, rate and time left; quiet where standard error is no terminal.

    Parameters
    ----------
    label : str
        What is being done.
    total : int
        Bytes in all.

    Yields
    ------
    callable
        To be told the bytes done since the last call.
    """
    if not (sys.stderr and sys.stderr.isatty()):
        yield lambda count: None
        return
    from huggingface_hub.utils.tqdm import tqdm

    with tqdm(desc=label, total=total, unit="B", unit_scale=True, leave=False, file=sys.stderr) as bar:  # type: ignore[no-untyped-call]
        yield lambda count: bar.update(count) and None
