"""Numbers <-> codes of 2, 4, 8 or 16 bits: each quantizer beside its inverse; coordinate descent on factors."""
