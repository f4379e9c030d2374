"""Merging benchmark: merged bases, packs against them, fusion for unseen tasks, calibration, and lossless bases.

Every model that is judged comes from files on disk. Each part is a file of its own; rows go to a log, so that a run
that was cut off goes on where it stopped.
"""
