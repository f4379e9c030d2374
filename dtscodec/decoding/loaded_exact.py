"""A tensor of an exact pack in memory, still packed, and decoded bit for bit (spec section 15)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import tensor_bytes
from dtscodec.decoding.reconstruct import ReadBase, as_tensor
from dtscodec.files.range_reader import Bytes
from dtscodec.format.blocks import Block, Content
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.reader import PackReader
from dtscodec.format.residual.exact_tensor import decode_checked
from dtscodec.format.residual.prediction import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class LoadedExact:
    """A tensor whose codes and chunks are in main memory, whatever device it is decoded for.

    Parameters
    ----------
    entry : TensorEntry
        The tensor's entry in the index.
    contents : sequence of (first row, Block, Content)
        Its blocks.
    chunks : sequence of bytes
        Its chunks; none if all its predictions are right.
    with_delta : bool
        Whether its prediction has the delta of coded blocks.
    leaf : bytes
        SHA-256 that the decoded tensor must have.
    """

    entry: TensorEntry
    contents: Sequence[tuple[int, Block, Content]]
    chunks: Sequence[bytes]
    with_delta: bool
    leaf: bytes

    @property
    def nbytes(self) -> int:
        """Bytes of chunks in memory."""
        return sum(map(len, self.chunks))

    def decode(self, read_base: ReadBase, device: torch.device) -> Tensor:
        """Return the bytes of the tensor: uint8 [nbytes], on a device.

        Parameters
        ----------
        read_base : callable
            Returns spec and checked bytes of a base tensor.
        device : torch.device
            Device of the result.

        Raises
        ------
        FormatError
            A chunk is damaged, or the result is not what was encoded (rules X4 and X5).
        """

        def read(name: str) -> tuple[TensorSpec, Bytes]:
            spec, data = read_base(name)
            return spec, tensor_bytes(data)

        prediction = Prediction(self.entry, self.contents, read, self.with_delta)
        data = decode_checked(iter(self.chunks), self.entry, prediction, self.leaf, self.entry.name)
        return as_tensor(data).to(device)


def load_exact(reader: PackReader, name: str) -> LoadedExact:
    """Read a tensor of a pack that has a residual layer.

    Parameters
    ----------
    reader : PackReader
        The pack.
    name : str
        The tensor, not a tie.

    Raises
    ------
    KeyError
        No tensor of that name.
    FormatError
        The pack is damaged there.
    """
    assert reader.layer is not None
    residual = reader.layer.tensor(name)
    contents, chunks = tuple(reader.contents(name)), tuple(reader.layer.chunks(name))
    return LoadedExact(reader.entry(name), contents, chunks, residual.with_delta, reader.layer.leaf(name))
