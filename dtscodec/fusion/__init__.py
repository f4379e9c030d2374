"""Fusion: packs of several tasks -> the pack of an unseen task, as their weighted sum.

In the order of the data::

    packs -> source_packs                          checked to be against one base, which is opened only if needed
    heads or vectors -> similarity -> mixing_weights   the factor on each pack's delta
    packs, weights -> summed_tensor                each tensor's sum, by factors where its rank is low
    summed tensors -> fused_pack -> fuse           candidate encodings, the choice among them, the pack
"""
