"""The two models of a fit, in memory as a whole or one layer at a time."""

from typing import Any

from dtscodec.calibration.available_memory import available_memory
from dtscodec.calibration.coded_weights import coded_weights
from dtscodec.calibration.precision import Precision
from dtscodec.calibration.student import Student
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.decoding.decoded import Decoded
from dtscodec.evaluation.architecture import Architecture
from dtscodec.evaluation.offloaded_model import OffloadedModel, has_layers, load_offloaded

MODELS, REST = 3, 10**9
"""What a fit of whole models takes: so many times the model in float32, and so many bytes."""


def must_offload(architecture: Architecture, fine: Checkpoint, device: str) -> bool:
    """Return whether models do not fit into the memory that is available, and can be in memory one layer at a time.

    Parameters
    ----------
    architecture : Architecture
        The models' architecture.
    fine : Checkpoint
        The fine-tune.
    device : str
        The device that the models run on.
    """
    needed = MODELS * 4 * sum(spec.elements for spec in fine.specs.values()) + REST
    available = available_memory(device)
    return available is not None and needed > available and has_layers(architecture)


def load_teacher(architecture: Architecture, fine: Checkpoint, precision: Precision, offload: bool) -> Any:
    """Return the fine-tune as a model.

    Parameters
    ----------
    architecture : Architecture
        Its architecture.
    fine : Checkpoint
        Its weights; open as long as the model runs.
    precision : Precision
        Its precision, and the device that it runs on.
    offload : bool
        Whether its layers are in memory one at a time.

    Raises
    ------
    CheckpointError
        As for `Architecture.load` or `OffloadedModel`.
    """
    if offload:
        return precision.prepare(load_offloaded(architecture, fine, precision.device, precision.dtype).model)
    return precision.prepare(architecture.load(fine, precision.dtype))


def load_student(architecture: Architecture, decoded: Decoded, precision: Precision, offload: bool) -> Student:
    """Return the decoded fine-tune as a model that can be fitted.

    Parameters
    ----------
    architecture : Architecture
        Its architecture.
    decoded : Decoded
        The pack on its base, on the CPU; open as long as the model runs.
    precision : Precision
        Its precision, and the device that it runs on.
    offload : bool
        Whether its layers are in memory one at a time. They are decoded whenever they run, from the numbers and
        elements as they are then.

    Raises
    ------
    CheckpointError
        As for `Architecture.build` or `OffloadedModel`.
    ModelMismatchError, NothingToFitError
        As for `coded_weights`.
    """
    where = str(decoded.pack.path or "pack")
    if offload:
        shapes = {name: decoded.spec(name).shape for name in decoded}
        read = decoded.__getitem__
        offloaded = OffloadedModel(architecture, shapes, read, where, precision.device, precision.dtype)
        model = precision.prepare(offloaded.model)
        student = Student(model, coded_weights(model, decoded), decoded)
        offloaded.read = student.read
    else:
        model = precision.prepare(architecture.build(decoded, where, precision.dtype))
        student = Student(model, coded_weights(model, decoded), decoded)
    student.rebuild()
    return student
