"""Digests of tensors and of bases: a leaf for each tensor, and one digest over the leaves (spec section 7)."""

import hashlib
from collections.abc import Mapping

from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec


def leaf(spec: TensorSpec, data: Bytes) -> bytes:
    """Return the SHA-256 of a tensor's dtype, shape and bytes; its name does not matter (spec section 7).

    Parameters
    ----------
    spec : TensorSpec
        Dtype and shape.
    data : uint8 [spec.nbytes]
        The tensor's bytes.

    Examples
    --------
    >>> import numpy as np
    >>> leaf(TensorSpec("F32", (2,)), np.zeros(8, np.uint8)).hex()[:16]
    'f89fbc94a7edc55a'
    """
    dims = ",".join(map(str, spec.shape))
    digest = hashlib.sha256(f"dtscodec-tensor-1\n{spec.dtype}\n{dims}\n".encode())
    digest.update(data.data)
    return digest.digest()


def base_digest(leaves: Mapping[str, bytes]) -> bytes:
    """Return the SHA-256 over names and leaves of the base tensors that a pack uses (spec section 7).

    Parameters
    ----------
    leaves : mapping of str to bytes
        Leaves of 32 bytes by name.

    Examples
    --------
    >>> base_digest({}).hex()[:16]
    'ec6011dae4c0ea3c'
    """
    result = hashlib.sha256(b"dtscodec-base-1\n")
    for name in sorted(leaves):
        encoded = name.encode()
        result.update(len(encoded).to_bytes(4, "little") + encoded + leaves[name])
    return result.digest()
