"""A delta that is known by its factors, such as an adapter's -> block and streams, without multiplying it out.

The inverse is `dtscodec.format.blocks.LowRankContent.delta`.
"""

from dtscodec.encoding.budget.component_spectrum import HALF_FACTORS
from dtscodec.encoding.presets.recipe import BEST, LEAST_ERROR
from dtscodec.encoding.segments.factored_segment import FactoredPart
from dtscodec.encoding.segments.segment import CodedBlock
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.blocks import Band, BaseRows, LowRank, Same
from dtscodec.format.streams import Streams
from dtscodec.linalg.devices import one_thread
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.quantize.widths import Bits, width_of


def code_factored(delta: Factored, base: BaseRows, bits: Bits) -> CodedBlock:
    """Code all components of a delta at one width; rows and columns of zeros stay untouched.

    Parameters
    ----------
    delta : Factored
        Finite, [m, n] as the tensor is seen as a matrix.
    base : BaseRows
        The m rows that it is added to.
    bits : int
        An element of a singular vector. 16 keeps the delta within a few ten-thousandths of its norm.

    Raises
    ------
    EncodeError
        It is beyond what the width, or float32, can hold.
    """
    with one_thread():
        part = FactoredPart.of(delta, base)
        if part is None:
            return CodedBlock(Same(delta.shape[0], base), Streams())
        _check_size(part.size, bits)
        # Half precision holds singular vectors so well that there is nothing to make up for.
        return part.code(
            LowRank(*part.subset, (Band(len(part.s), bits),)), LEAST_ERROR if width_of(bits).is_float else BEST
        )


def _check_size(size: float, bits: Bits) -> None:
    """Refuse a delta whose factors half precision, which has no scales beside it, cannot hold."""
    if width_of(bits).is_float and not HALF_FACTORS[0] <= size <= HALF_FACTORS[1]:
        detail = "expected a delta whose factors half precision holds"
        raise EncodeError(
            f"{detail}, got elements of about {size:.1e}", Remedy("code it in 8 bits ({bits})", {"bits": "8"})
        )
