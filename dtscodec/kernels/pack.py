"""Codes -> packed bytes, as torch tensors on the device of the codes (spec section 5.3).

`dtscodec.quantize.packing.pack_codes` does the same in numpy.
"""

import torch
from torch import Tensor

from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.widths import Bits


def pack_tensor(codes: Tensor, bits: Bits) -> Tensor:
    """Pack vectors of codes; the inverse is in `dtscodec.kernels.unpack`.

    Parameters
    ----------
    codes : Tensor [k, n]
        Float16 at 16 bits, int8 at 8 bits; below, integers of any dtype that are smaller than 2**bits.
    bits : int
        Bits per code.

    Returns
    -------
    uint8 [k, vector_bytes(n, bits)]
    """
    vectors, count = codes.shape
    size = vector_bytes(count, bits)
    dtype = codes.dtype if bits >= 8 else torch.uint8
    # Padding is zero (rule E1).
    padded = torch.zeros(vectors, size * 8 // bits, dtype=dtype, device=codes.device)
    padded[:, :count] = codes
    if bits >= 8:
        return padded.view(torch.uint8)
    # Several codes share a byte; the first one takes its lowest bits.
    per_byte = 8 // bits
    shared = padded.view(vectors, size, per_byte)
    packed = shared[..., 0].clone()
    for position in range(1, per_byte):
        packed |= shared[..., position] << position * bits
    return packed
