"""A progress bar over bytes or other things, on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, total: int, unit: str = "B") -> Iterator[Callable[[int], None]]:
    """A bar with bytes or other units, rate and time left; quiet where standard error is no terminal.

    Parameters
    ----------
    label : str
        What is being done.
    total : int
        Units in all.
    unit : str
        What is counted.

    Yields
    ------
    callable
        To be told the units done since the last call.
    """
    if not (sys.stderr and sys.stderr.isatty()):
        yield lambda count: None
        return
    from huggingface_hub.utils.tqdm import tqdm

    scale = unit == "B"
    with tqdm(desc=label, total=total, unit=unit, unit_scale=scale, leave=False, file=sys.stderr) as bar:  # type: ignore[no-untyped-call]
        yield lambda count: bar.update(count) and None
