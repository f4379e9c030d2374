"""Model directory + samples -> file of Gram matrices (`dtscodec.activations.gram_file`)."""

from collections.abc import Mapping
from pathlib import Path

import torch

from dtscodec.activations.gram_file import GramSet, save_grams
from dtscodec.calibration.gram_collector import GramCollector
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.evaluation.architecture import model_directory, read_architecture
from dtscodec.evaluation.samples import prepare_samples
from dtscodec.evaluation.transformers_library import quiet_transformers, transformers_errors
from dtscodec.evaluation.weight_conversions import locate_tensors
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import WHOLE
from dtscodec.storage.paths import as_output_path


def collect(
    fine_tune: Source,
    out: "str | Path",
    *,
    samples: "str | Path",
    model: "str | Path | None" = None,
    batch_size: int = 16,
    device: str = "cpu",
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> GramSet:
    """Run a fine-tune on samples, and write the Gram matrices of its linear layers' inputs.

    `dtscodec.merge` by ESM and routing (`Attached.route`) use such files. Padding is left out, and layers that share an
    input are stored once. Needs the package transformers. `dtscodec.collect_grams` is for other models and other
    inputs.

    Parameters
    ----------
    fine_tune : path or mapping of tensors
        The fine-tune: a model directory, or weights only together with `model`.
    out : path
        The file to write, ``*.safetensors``.
    samples : path
        A file of texts or a folder of images, as for `dtscodec.compare_behaviour`; labels are not used. 64 are enough.
    model : path, optional
        The directory of configuration, and tokenizer or image processor; by default the fine-tune's own.
    batch_size : int
        Samples in a batch.
    device : str
        The device that the model runs on, such as ``"cuda"``.
    force : bool
        Replace a file that exists.
    progress : callable
        Called with the number of samples of each batch after it has run.

    Returns
    -------
    GramSet
        The content of the file, under the names of the checkpoint's tensors.

    Raises
    ------
    SamplesError, BackendError
        As for `dtscodec.compare_behaviour`.
    CheckpointError
        As for `dtscodec.compare_behaviour`; or a layer's inputs are NaN or infinite, or there is no linear layer.
    OutputError
        The output exists, or cannot be written.
    """
    out = as_output_path(out)
    architecture = read_architecture(model_directory(model, fine_tune))
    prepared = prepare_samples(architecture, Path(samples))
    with open_checkpoint(fine_tune, WHOLE) as fine:
        built = architecture.load(fine).to(device)
        located, where = locate_tensors(built, {name: spec.shape for name, spec in fine.specs.items()}), fine.location
    # Layers whose tensors transformers makes from several, or transposes, have no name in the checkpoint.
    names = {own: name for name, own in located.renamed.items()}
    collector = GramCollector(built)
    with quiet_transformers():
        # Run the model; hooks add up the Gram matrices.
        for batch in prepared.batches(built, batch_size):
            inputs = batch.to(device).inputs
            explained = transformers_errors(type(built).__name__, "a model that takes these samples")
            with torch.no_grad(), collector.watching(inputs.get("attention_mask")), explained:
                built(**inputs)
            progress(batch.samples)
    collected = collector.grams()
    _check_finite(collected, names, where)
    # From the model's names of tensors to the checkpoint's.
    found = collected.renamed(names)
    if not found.grams:
        detail = "expected linear layers, got none under the checkpoint's names"
        raise CheckpointError(f"{architecture.directory}: {detail}")
    save_grams(out, found, force)
    return found


def _check_finite(collected: GramSet, names: Mapping[str, str], where: str) -> None:
    """Raise CheckpointError about the first layer, in the order in which they run, with inputs beyond float32.

    The file is in float32, so a Gram matrix that overflows there is refused, too.
    """
    for name, gram in collected.grams.items():
        if not gram.moment.float().isfinite().all():
            detail = "expected finite inputs of layers, got NaN or infinity"
            raise CheckpointError(f"{where}: {names.get(name, name)}: {detail}")
