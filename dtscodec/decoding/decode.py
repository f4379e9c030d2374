"""Pack + base -> weights (spec section 8)."""

from contextlib import ExitStack

import torch

from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.decoding.decoded import Decoded
from dtscodec.linalg.devices import usable_device
from dtscodec.packs.directory import find_base
from dtscodec.packs.pack import MAX_TENSOR_BYTES, PackSource, as_pack
from dtscodec.storage.open_file import Access


def decode(
    pack: PackSource,
    base: "Source | Base | None" = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    check: bool = True,
    max_tensor_bytes: int = MAX_TENSOR_BYTES,
    whole: bool = False,
    lossy: bool = False,
) -> "Decoded":
    """Open a fine-tune from a pack and its base.

    Tensors are decoded one by one, on access.

    Parameters
    ----------
    pack : path, bytes or Pack
        The pack: a local file, one in remote storage or on the Hub (see `dtscodec.Pack`), or its bytes.
    base : path, mapping of tensors, or Base
        The base. By default, the one that the index of the pack's directory names, or the one that the pack records
        (see `dtscodec.packs.directory.find_base`).
    device : str or torch.device
        Device on which tensors are reconstructed, and stay.
    dtype : torch.dtype, optional
        Dtype of decoded tensors of F16, BF16, F32 and F64; by default each has the fine-tune's own.
    check : bool
        Whether base tensors are checked against the pack. Without the check, a wrong base gives wrong weights.
    max_tensor_bytes : int
        Largest tensor that is decoded, in bytes; a hostile pack may claim any size.
    whole : bool
        Whether all tensors will be decoded. Files on the Hub are then downloaded through the client's cache; otherwise
        only the requested tensors are read.
    lossy : bool
        Whether the residual layer of a pack is left out, and not read either. Without such a layer, the result is the
        same.

    Returns
    -------
    Decoded
        A lazy mapping; only the index has been read. Close it, or use it as a context manager.

    Raises
    ------
    FormatError
        The pack is not valid.
    BaseMismatchError
        On access to a tensor: the pack needs a base, and there is none, or a different one.
    CheckpointError
        The base cannot be read.
    BackendError
        torch does not have the device.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> fine = {"w": torch.outer(torch.ones(64), torch.ones(64))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = dtscodec.encode(base, fine, f"{folder}/task.safetensors").path
    ...     with dtscodec.decode(path, base) as state:
    ...         state["w"].shape
    torch.Size([64, 64])
    """
    with ExitStack() as stack:
        opened = stack.enter_context(as_pack(pack, whole and not lossy, whole and lossy))
        found = base if base is not None else find_base(opened)
        # The pack records whether a quantized base is read dequantized.
        context = None if found is None else as_base(found, Access(whole=whole), opened.summary.dequantized_base)
        opened_base = None if context is None else stack.enter_context(context)
        decoded = Decoded(opened, opened_base, usable_device(device), dtype, check, max_tensor_bytes, lossy)
        # From here on the decoded fine-tune owns what was opened.
        decoded.take_ownership(stack.pop_all())
        return decoded
