"""Checks that the first dimension of a layer's input is that of the requests, where that is not sure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dtscodec.errors import ModelMismatchError, Remedy
from dtscodec.runtime.branches.request_batch import ONE_FOR_ALL, RequestBatch

MEDIA_TOKEN = re.compile(r"(image|video|vision|audio|speech)\w*_token_(id|index)")
"""Settings of models that put features of images or sounds in the place of tokens, as transformers names them."""
MEDIA_PARTS = frozenset(
    ("vision_tower", "vision_model", "vision_encoder", "visual", "image_tower", "audio_tower", "audio_encoder",
     "speech_encoder", "multi_modal_projector", "connector", "qformer", "perceiver_resampler")
)  # fmt: skip
"""Names of the parts of such models that images or sounds pass through, beside those next to the language model."""
SEQUENCE_FIRST = (
    "transformers.models.longformer.modeling_longformer.LongformerSelfAttention",
    "transformers.models.led.modeling_led.LEDEncoderSelfAttention",
    "transformers.models.xlnet.modeling_xlnet.XLNetModel",
    "transformers.models.fsmt.modeling_fsmt.FSMTModel",
)
"""Classes whose layers get [tokens, requests, features]. So do those beside an `nn.MultiheadAttention` that does."""
MAIN_INPUTS = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds", "pixel_values")


class RowChecks:
    """Checks of the inputs of a model's layers.

    Parameters
    ----------
    model : nn.Module
        The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._media = set(_media_layers(model))
        self._sequence_first = set(_sequence_first_layers(model))

    def rows_of(self, batch: RequestBatch, module: nn.Module, name: str, x: Tensor) -> RequestBatch:
        """Return a batch for one call of a layer.

        Parameters
        ----------
        batch : RequestBatch
            The requests by task.
        module : nn.Module
            A layer that a task of the batch changes.
        name : str
            Name of its parameter, for messages.
        x : Tensor
            Its input.

        Returns
        -------
        RequestBatch
            The same batch; or, where the layer has no row for each request, one of any number of rows.

        Raises
        ------
        ModelMismatchError
            The requests ask for several tasks, and it is unknown which rows are theirs.
        """
        of_media = module in self._media
        if (same := batch.of_one_task()) is not None:
            return same if of_media else batch
        what = "images or sounds, of which a request may have any number" if of_media else "[tokens, requests, ...]"
        if of_media or module in self._sequence_first:
            detail = f"expected an input with a row for each request, got one of {what}"
            raise ModelMismatchError(f"{name}: {detail}", ONE_FOR_ALL)
        # With as many tokens as requests, shapes do not show whether the model has swapped them, but strides may.
        if x.dim() > 2 and x.shape[0] == x.shape[1] and 0 < x.stride(0) < x.stride(1):
            detail = f"expected a first dimension of requests, got {list(x.shape)}, in which it may be the second"
            raise ModelMismatchError(f"{name}: {detail}", ONE_FOR_ALL)
        return batch

    def check_entry(self, batch: RequestBatch, args: Sequence[Any], inputs: Mapping[str, Any]) -> None:
        """Check that a model's input is not a single row for several requests, which layers would broadcast.

        Parameters
        ----------
        batch : RequestBatch
            The requests by task.
        args, inputs : sequence and mapping
            The model's arguments.

        Raises
        ------
        ModelMismatchError
            The input is such a row.
        """
        found = [*args, *(inputs.get(name) for name in MAIN_INPUTS), *inputs.values()]
        x = next((one for one in found if isinstance(one, Tensor) and one.dim() > 1), None)
        if x is not None and batch.size is not None and x.shape[0] == 1 < batch.size:
            detail = f"expected an input of {batch.size} rows, one for each task, got one row: {list(x.shape)}"
            raise ModelMismatchError(f"the model: {detail}", Remedy("repeat the row for each task"))


def _media_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of multimodal models that are not of the language model."""
    module: Any
    for module in model.modules():
        settings = getattr(getattr(module, "config", None), "__dict__", {})
        if not hasattr(module, "get_decoder") or not any(MEDIA_TOKEN.fullmatch(key) for key in settings):
            continue
        # Siblings of the language model, at any depth, and parts of known names.
        language = (module.get_decoder(), module.get_output_embeddings())
        for name, part in module.named_modules():
            children = list(part.children())
            beside = [child for child in children if language[0] in children and child not in language]
            named = [part] if MEDIA_PARTS.intersection(name.split(".")) else []
            for other in (*beside, *named):
                yield from other.modules()


def _sequence_first_layers(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        beside = any(isinstance(one, nn.MultiheadAttention) and not one.batch_first for one in module.children())
        if beside or f"{type(module).__module__}.{type(module).__qualname__}" in SEQUENCE_FIRST:
            yield from module.modules()
