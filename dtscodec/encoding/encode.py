"""Checkpoint -> pack file; `dtscodec.decode` is the inverse."""

from concurrent.futures import Executor
from pathlib import Path

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.encode_front import encode_front
from dtscodec.encoding.journal import Journal
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.residual.encode_exact import encode_exact, exact_passes
from dtscodec.progress import ProgressCallback, no_progress


def passes(config: EncodeConfig) -> int:
    """Return the number of passes over all tensors that report progress: `best` surveys all before it encodes any.

    A target of an error, and the search for the size of an exact pack's codes, take further passes. They report no
    progress, since their number is not known in advance.

    Parameters
    ----------
    config : EncodeConfig
        Settings of the encode.
    """
    return exact_passes(config) if config.exact else config.passes


def encode(
    base: "Source | Base",
    fine_tune: "Source | Checkpoint",
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    task: str | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
    executor: Executor | None = None,
    journal: Journal | None = None,
) -> EncodeReport:
    """Write the pack that turns a base into a fine-tune; `decode` is the inverse.

    Parameters
    ----------
    base : path, mapping of tensors, or Base
        The base checkpoint. A `Base` is hashed once for several fine-tunes.
    fine_tune : path, mapping of tensors, or Checkpoint
        The fine-tune. Remote ones, such as ``s3://bucket/model``, are transferred once.
    out : path
        The pack, local or remote; its directory must exist.
    config : EncodeConfig, optional
        Settings; by default the preset `best` at 0.08 bits per parameter. With `exact`, a residual layer follows the
        codes, and the pack decodes to the fine-tune bit for bit.
    task : str, optional
        A short name, stored in the pack.
    force : bool
        Replace a file that exists.
    progress : callable
        Called with the bytes of each tensor in each of the passes over them; see `passes`.
    executor : concurrent.futures.Executor, optional
        Its workers decompose and quantize tensors, which they read from the same paths; by default this process does.
        The pack is the same.
    journal : Journal, optional
        Stores results, so that the same call resumes an interrupted one. An exact encode that searches for the size of
        its codes does not use it.

    Returns
    -------
    EncodeReport
        Size, error and time.

    Raises
    ------
    CheckpointError
        A checkpoint cannot be read.
    ConfigError
        A pattern of `raw` fits no tensor.
    BaseMismatchError
        The base is of another architecture.
    EncodeError
        A tensor cannot be encoded, names are ambiguous, or the target size is too small.
    BackendError
        A worker was killed, or the device or a package for remote storage is not available.
    OutputError
        The pack exists or cannot be written, or the journal belongs to another encode.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> fine = {"w": torch.outer(torch.linspace(-1, 1, 64), torch.ones(64))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = dtscodec.encode(base, fine, f"{folder}/task.safetensors")
    ...     with dtscodec.open(report.path) as pack:
    ...         pack.keys()
    ('w',)
    """
    config = config or EncodeConfig()
    write = encode_exact if config.exact else encode_front
    return write(
        base, fine_tune, out, config, task=task, force=force, progress=progress, executor=executor, journal=journal
    )
