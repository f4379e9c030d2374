"""Files that cannot be read as a checkpoint: weights of other programs, web pages in place of a download."""

from pathlib import Path

from dtscodec.checkpoints.lfs_pointer import check_no_pointer
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.storage.paths import is_remote

_OTHER_FRAMEWORKS = {
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".ot": "Rust",
    ".onnx": "ONNX",
    ".onnx_data": "ONNX",
    ".gguf": "llama.cpp",
    ".tflite": "TensorFlow Lite",
    ".mlmodel": "Core ML",
    ".flashpack": "FlashPack",
}
"""Endings of weights that only other programs read."""

_FIRST_BYTES = {b"GGUF": "llama.cpp", b"\x89HDF": "TensorFlow"}
"""First bytes of files that only other programs read."""

_ADVICE = {
    "llama.cpp": "load it with transformers' from_pretrained(..., gguf_file=...), and save_pretrained it",
    "TensorFlow": "load it with transformers 4, from_pretrained(..., from_tf=True), and save_pretrained it",
    "Flax": "load it with transformers 4, from_pretrained(..., from_flax=True), and save_pretrained it",
}


def other_framework(name: str) -> str | None:
    """Return the program that alone reads a file of weights of this name; None if torch does.

    >>> other_framework("tf_model.h5"), other_framework("model.safetensors")
    ('TensorFlow', None)
    """
    return next((program for ending, program in _OTHER_FRAMEWORKS.items() if name.endswith(ending)), None)


def advice_on(program: str) -> str:
    """Return advice on making a readable checkpoint of another program's weights.

    Parameters
    ----------
    program : str
        A name that `other_framework` returns.
    """
    return _ADVICE.get(program, "take the checkpoint that it was made from")


def check_not_foreign(path: Path) -> None:
    """Raise CheckpointError if the content of a file shows why it cannot be read as a checkpoint.

    Parameters
    ----------
    path : Path
        The file. Remote files are not checked.
    """
    if is_remote(path):
        return
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError:
        return
    check_no_pointer(path, head)
    if head[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        detail = "expected a checkpoint, got a web page"
        raise CheckpointError(f"{path}: {detail}", Remedy("download the file again: the server may ask for a log-in"))
    program = next((name for first, name in _FIRST_BYTES.items() if head.startswith(first)), other_framework(path.name))
    if program is not None:
        detail = f"expected safetensors or a file of torch.save, got one that only {program} reads"
        raise CheckpointError(f"{path}: {detail}", Remedy.literal(advice_on(program)))
    # A header begins with its length in eight bytes, some of them zero, and an archive or pickle with other bytes.
    if head and min(head) >= ord("\t") and head[0] < 128:
        detail = "expected safetensors or a file of torch.save, got text"
        raise CheckpointError(f"{path}: {detail}", Remedy("name the model's directory, or the file of its weights"))
    if path.suffix == ".distcp":
        detail = "expected a whole checkpoint, got a shard of torch.distributed"
        remedy = Remedy("name its directory: the error then has the command that merges the shards")
        raise CheckpointError(f"{path}: {detail}", remedy)
