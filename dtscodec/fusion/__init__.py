"""Packs -> the pack of a task that nobody trained: their weighted sum.

In the order of the data::

    packs -> seen                                     they have one base; the base itself, if something needs it
    heads or vectors -> similarity -> weights         how much each counts
    packs, weights -> summed -> fusion -> fuse        a tensor's sum by factors; what to spend bytes on; the pack
"""
