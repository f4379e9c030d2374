"""Fidelity benchmark: bytes against behaviour, for the presets `best` and `paper` and for their peers.

Each of them codes the same fine-tunes at a range of sizes; what is compared is how far the decoded models'
predictions are from the fine-tune's at equal bytes. ``peers`` holds the rival methods, ``limit`` a bound on the
weight error that any code of the singular vectors must leave.
"""
