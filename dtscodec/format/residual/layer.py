"""Reading of a pack's residual layer: its index first, chunks on demand (spec section 15)."""

from collections.abc import Iterator

from dtscodec.errors import FormatError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.arena_reader import ArenaReader
from dtscodec.format.container import LAYER
from dtscodec.format.content_digest import base_digest
from dtscodec.format.index import Index, TensorEntry
from dtscodec.format.residual.exact_tensor import decode_checked
from dtscodec.format.residual.layer_index import LayerIndex, TensorResidual, chunk_spans, parse_layer_index
from dtscodec.format.residual.prediction import Prediction
from dtscodec.format.residual.weight_headers import is_whole
from dtscodec.format.stored_files import decompress_file

MAX_LAYER_INDEX_BYTES = 2**28
"""Largest index of a residual layer, in bytes of JSON."""


class ResidualLayer:
    """The residual layer of an open pack.

    Parameters
    ----------
    arenas : ArenaReader
        The pack.
    front : Index
        The index of its front.
    where : str
        Name of the pack, for messages.

    Attributes
    ----------
    index : LayerIndex
        The index of the layer.

    Raises
    ------
    FormatError
        Rules D3, D4, I1 and X1 to X3.
    """

    def __init__(self, arenas: ArenaReader, front: Index, where: str) -> None:
        self._arenas, self._where = arenas, where
        self._specs, self._folders = {entry.name: entry.spec for entry in front.tensors}, front.folders
        text = arenas.read_frame(LAYER[1], MAX_LAYER_INDEX_BYTES)
        self.index: LayerIndex = parse_layer_index(text, front.tensors, f"{where}: {LAYER[1]}")
        spans, self._files, length = chunk_spans(self.index)
        arenas.check_length(LAYER[2], length)
        self._tensors = {
            entry.name: (tensor, own)
            for entry, tensor, own in zip(front.tensors, self.index.tensors, spans, strict=True)
        }
        # The leaves are those that the digest in the summary covers.
        found = base_digest({name: bytes.fromhex(tensor.leaf) for name, (tensor, _) in self._tensors.items()}).hex()
        if found != arenas.header.summary.content:
            detail = f"expected the content digest {arenas.header.summary.content}, got {found}"
            raise FormatError("content", where, detail, "15.1")
        for entry in front.tensors:
            if entry.tied_to is not None and self.leaf(entry.name) != self.leaf(entry.tied_to):
                detail = f"expected the leaf of {entry.tied_to}, which it is tied to"
                raise FormatError("content", f"{where}: {entry.name}", detail, "15.1")

    def tensor(self, name: str) -> TensorResidual:
        """Return the entry of a tensor; KeyError if there is none."""
        return self._tensors[name][0]

    def leaf(self, name: str) -> bytes:
        """Return the leaf of a tensor, 32 bytes."""
        return bytes.fromhex(self.tensor(name).leaf)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the chunks of a tensor.

        Raises
        ------
        FormatError
            Rule D3.
        """
        for span in self._tensors[name][1]:
            yield self._arenas.read(LAYER[2], span) if span[0] != span[1] else b""

    def decode(self, entry: TensorEntry, prediction: Prediction) -> Bytes:
        """Return a tensor bit for bit: uint8 [nbytes].

        Parameters
        ----------
        entry : TensorEntry
            The tensor, not a tie.
        prediction : Prediction
            Its prediction.

        Raises
        ------
        FormatError
            Rules D3, X4 and X5.
        BaseMismatchError
            A base tensor is another than the pack was made against.
        """
        where = f"{self._where}: {entry.name}"
        return decode_checked(self.chunks(entry.name), entry, prediction, self.leaf(entry.name), where)

    def weight_files(self) -> dict[str, bytes]:
        """Return what is stored of the fine-tune's weight files: headers of safetensors files, and indices of shards.

        Raises
        ------
        FormatError
            Rules D3, F2 and X6.
        """
        files = {
            file.name: decompress_file(
                self._arenas.read(LAYER[2], self._files[file.name]), file.size, f"{self._where}: {file.name}"
            )
            for file in self.index.weights
        }
        if files and not is_whole(files, self._specs, self._folders):
            raise FormatError("file", self._where, "expected weight files with each tensor once, got others", "15.1")
        return files
