"""Numbers <-> codes <-> packed bytes: widths, quantizers beside their inverses, packing."""
