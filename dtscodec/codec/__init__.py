"""The mathematics, in memory: delta -> factors -> codes, and back.

Encoding, in the order of the data::

    checkpoints -> delta, moved, rounding -> pieces
    pieces -> options -> survey -> allocate (a size) or least (an error)      what to spend bytes on; size, recipe
    pieces -> factorize (subspace, spectrum) -> levels, refine -> best        codes that fit the delta
    pieces -> factorize -> codebook -> paper                                  codes as DTS has them
    factored -> factored_part -> code_factored                                a delta known by factors: an adapter's
    blocks and streams -> code_tensor -> encode                               the pack; ties

What is done with one tensor is `tensor_work`, here or in `workers`.

Decoding, the inverse: pack -> dequantize -> reconstruct -> decode, decoded. Beside them: compare, folder, inventory.
"""
