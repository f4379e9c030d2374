"""The error for a directory without weights that can be read, with a diagnosis and a remedy."""

import re
from collections.abc import Callable
from pathlib import Path

from dtscodec.checkpoints.directories.file_names import ADAPTER_WEIGHTS, TRANSFORMERS
from dtscodec.checkpoints.directories.unread_files import is_training_state, is_weight_file
from dtscodec.checkpoints.foreign_file import advice_on, other_framework
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.messages import listed
from dtscodec.storage.listing import Listing, list_directory
from dtscodec.storage.paths import is_remote

Advice = tuple[str, str]
"""Description of a directory, and a remedy."""

_MERGE_DCP = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"


def no_weights_error(directory: Path, listing: Listing) -> CheckpointError:
    """Return the error for a directory in which no weights were found.

    Parameters
    ----------
    directory : Path
        The directory.
    listing : Listing
        Its files and folders.

    Raises
    ------
    Exception
        Errors of the storage, when folders are listed.
    """
    for diagnose in _DIAGNOSES:
        if found := diagnose(directory, listing):
            got, remedy = found
            return CheckpointError(f"{directory}: expected a model's weights, got {got}", Remedy.literal(remedy))
    usual = ", ".join(TRANSFORMERS)
    return CheckpointError(f"{directory}: expected {usual} or exactly one *.safetensors, got none of them")


def pipeline_error(directory: Path, listing: Listing) -> CheckpointError | None:
    """Return the error for a pipeline of diffusers, whose components are models of their own; None for others.

    Parameters
    ----------
    directory : Path
        The directory.
    listing : Listing
        Its files and folders.
    """
    if "model_index.json" not in listing.files:
        return None
    components = _folders_with_weights(directory, listing)
    if not components:
        return None
    problem = f"{directory}: expected one model, got a pipeline of diffusers with {listed(components, 6)}"
    return CheckpointError(
        problem, Remedy.literal(f"take each component by itself, such as {directory / components[0]}")
    )


def _adapter(directory: Path, listing: Listing) -> Advice | None:
    if any(name in listing.files for name in (*ADAPTER_WEIGHTS, "adapters.safetensors")):
        return "an adapter", "import it: dtscodec.import_adapter, or the command 'dtscodec import'"
    return None


def _hub_cache(directory: Path, listing: Listing) -> Advice | None:
    if not {"snapshots", "blobs"} <= set(listing.folders):
        return None
    commits = list_directory(directory / "snapshots").folders
    example = directory / "snapshots" / (commits[0] if commits else "COMMIT")
    return "a repository in the cache of the Hub", f"name a snapshot of it: {example}"


def _distributed(directory: Path, listing: Listing) -> Advice | None:
    """Sharded checkpoints of torch.distributed: FSDP's, also in the folders of accelerate and Lightning."""
    folders = [folder for folder in listing.folders if folder.startswith("pytorch_model_fsdp")]
    if folders:
        command = f"accelerate merge-weights {directory / folders[0]} OUT"
        return f"shards of FSDP in {folders[0]}", f"merge them: {command}"
    here = ".metadata" in listing.files or any(name.endswith(".distcp") for name in listing.files)
    inner = next((f for f in listing.folders if ".metadata" in list_directory(directory / f).files), None)
    if here and directory.name.startswith("pytorch_model_fsdp"):
        return "shards of FSDP", f"merge them: accelerate merge-weights {directory} OUT"
    if here or inner:
        where = directory if here else directory / str(inner)
        return "a sharded checkpoint of torch.distributed", f"merge it: {_MERGE_DCP} {where} OUT.pt"
    return None


def _deepspeed(directory: Path, listing: Listing) -> Advice | None:
    steps = [folder for folder in listing.folders if folder.startswith("global_step")]
    here = any(re.fullmatch(r"(bf16_)?zero_pp_rank_.*\.pt|mp_rank_.*_model_states\.pt", name) for name in listing.files)
    if not (steps or here):
        return None
    # DeepSpeed copies its script beside the folders of steps; it takes their parent.
    parent = directory.parent if here and not steps else directory
    has_script = "zero_to_fp32.py" in list_directory(parent).files
    script = str(parent / "zero_to_fp32.py") if has_script else "-m deepspeed.utils.zero_to_fp32"
    return "shards of DeepSpeed", f"merge them: python {script} {parent} OUT"


def _megatron(directory: Path, listing: Listing) -> Advice | None:
    steps = [folder for folder in listing.folders if re.fullmatch(r"iter_\d+|release", folder)]
    ranks = any(folder.startswith("mp_rank_") for folder in listing.folders)
    if not (ranks or (steps and "latest_checkpointed_iteration.txt" in listing.files)):
        return None
    return (
        "a checkpoint of Megatron",
        "convert it to the layout of Hugging Face with Megatron Bridge (AutoBridge.export_ckpt)",
    )


def _parallel_parts(directory: Path, listing: Listing) -> Advice | None:
    parts = [name for name in listing.files if re.fullmatch(r"consolidated\.\d\d\.pth", name)]
    if not parts:
        return None
    if len(parts) == 1:
        return f"{parts[0]}, in Meta's own layout", f"name the file itself: {directory / parts[0]}"
    convert = "convert them with transformers' convert_llama_weights_to_hf.py, or take the repository's *.safetensors"
    return f"{len(parts)} parts of Meta's own layout, each with a piece of every tensor", convert


def _training_checkpoints(directory: Path, listing: Listing) -> Advice | None:
    steps = [folder for folder in listing.folders if re.fullmatch(r"checkpoint-\d+", folder)]
    if not steps:
        return None
    last = max(steps, key=lambda folder: int(folder.split("-")[1]))
    return f"a folder of training checkpoints, {listed(steps, 3)}", f"name one of them: {directory / last}"


def _torch_files(directory: Path, listing: Listing) -> Advice | None:
    found = [name for name in listing.files if is_weight_file(name) and not other_framework(name)]
    if not found:
        return None
    return f"weights of other names: {listed(found, 3)}", f"name a file itself: {directory / found[0]}"


def _broken_links(directory: Path, listing: Listing) -> Advice | None:
    """Links whose targets do not exist, as in a cache of the Hub that was cleared in part."""
    if is_remote(directory):
        return None
    gone = sorted(path.name for path in directory.iterdir() if path.is_symlink() and not path.exists())
    found = [name for name in gone if is_weight_file(name)]
    return (f"broken links: {listed(found, 3)}", "download the files again") if found else None


def _training_state(directory: Path, listing: Listing) -> Advice | None:
    found = [name for name in listing.files if is_training_state(name)]
    return (f"only the state of a training: {listed(found, 3)}", "name the directory of the model") if found else None


def _other_program(directory: Path, listing: Listing) -> Advice | None:
    found = {name: program for name in listing.files if (program := other_framework(name))}
    if not found:
        return None
    name, program = next(iter(found.items()))
    return f"{name}, which only {program} reads", advice_on(program)


def _inner_models(directory: Path, listing: Listing) -> Advice | None:
    found = _folders_with_weights(directory, listing)
    if not found:
        return None
    return f"weights in folders only: {listed(found, 4)}", f"name one of them: {directory / found[0]}"


def _folders_with_weights(directory: Path, listing: Listing) -> list[str]:
    def has_weights(folder: str) -> bool:
        return any(is_weight_file(name) for name in list_directory(directory / folder).files)

    return [folder for folder in listing.folders if not folder.startswith(".") and has_weights(folder)]


_DIAGNOSES: tuple[Callable[[Path, Listing], Advice | None], ...] = (
    _adapter,
    _hub_cache,
    _deepspeed,
    _distributed,
    _megatron,
    _parallel_parts,
    _training_checkpoints,
    _torch_files,
    _other_program,
    _inner_models,
    _broken_links,
    _training_state,
)
"""The most certain diagnosis first. The first that applies is reported."""
