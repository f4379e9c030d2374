"""All components of a factored delta, such as an adapter's, at one width.

The inverse is `dtscodec.format.blocks.LowRankContent.delta`.
"""

from dtscodec.encoding.budget.component_spectrum import fits_half_factors, root_mean_square
from dtscodec.encoding.presets.best import encode_low_rank
from dtscodec.encoding.presets.recipe import BEST, LEAST_ERROR
from dtscodec.encoding.segments.encoded_block import EncodedBlock, same_block
from dtscodec.encoding.segments.factored_delta import FactoredDelta
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.blocks import Band, BaseRows, LowRank
from dtscodec.linalg.devices import one_thread
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.quantize.widths import Bits, width_of


def encode_factored(delta: Factored, base: BaseRows, bits: Bits) -> EncodedBlock:
    """Encode all components of a delta at one width; rows and columns of zeros are left out.

    Parameters
    ----------
    delta : Factored
        The delta of a tensor as a matrix, finite, [m, n].
    base : BaseRows
        The m base rows that it is added to.
    bits : int
        Bits per code. At 16 the error is a few ten-thousandths of the norm.

    Raises
    ------
    EncodeError
        The delta is beyond the range of the width, or of float32.
    """
    with one_thread():
        changed = FactoredDelta.of(delta, base)
        if changed is None:
            return same_block(delta.shape[0], base)
        is_float = width_of(bits).is_float
        largest = float(changed.s[0])
        if is_float and not fits_half_factors(largest, changed.shape):
            size = root_mean_square(largest, changed.shape)
            detail = f"expected a delta whose factors half precision holds, got elements of about {size:.1e}"
            raise EncodeError(detail, Remedy("code it in 8 bits ({bits})", {"bits": "8"}))
        # Half precision holds singular vectors so well that there is no shrinkage to make up for.
        block = LowRank(*changed.subset, (Band(len(changed.s), bits),))
        return encode_low_rank(changed, block, LEAST_ERROR if is_float else BEST)
