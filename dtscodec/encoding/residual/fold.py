"""A chain of exact packs -> one exact pack with the same result (spec section 15.6)."""

import os
from collections.abc import Sequence
from pathlib import Path

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.encoding.config import EXACT, EncodeConfig
from dtscodec.encoding.encode import encode
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.errors import ConfigError
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import WHOLE


def fold(
    chain: Sequence[str | os.PathLike[str]],
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    task: str | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> EncodeReport:
    """Write one exact pack against the base of a chain that decodes to what the last pack does.

    Parameters
    ----------
    chain : sequence of paths
        The base, an exact pack made against it, an exact pack made against what that decodes to, and so on.
    out : path
        The new pack, local or remote.
    config : EncodeConfig, optional
        Settings with `exact`; by default no codes, which is the fastest.
    task : str, optional
        A short name, stored in the pack.
    force : bool
        Replace a file that exists.
    progress : callable
        As for `dtscodec.encode`.

    Raises
    ------
    ConfigError
        The chain has no packs, or the settings are not exact.
    CheckpointError
        The chain cannot be read, or a pack was made against something else than what lies before it.
    EncodeError, OutputError
        As for `dtscodec.encode`.
    """
    config = config or EXACT
    if isinstance(chain, (str, os.PathLike)) or len(chain) < 2:
        raise ConfigError(f"expected a base and at least one exact pack on it, got {chain!r:.80}")
    if not config.exact:
        raise ConfigError("expected settings with exact=True to fold a chain, got lossy ones")
    with open_checkpoint(chain, WHOLE) as last:
        return encode(chain[0], last, out, config, task=task, force=force, progress=progress)
