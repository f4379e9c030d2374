"""Numbers <-> codes <-> packed bytes: widths, quantizers with their inverses, packing."""
