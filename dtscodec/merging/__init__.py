"""Fine-tunes -> one shared base (what merging is): a method for the weights, and the base as a file.

In the order of the data::

    checkpoints -> inputs                                 which tensors merge, and by how much each task moves them
    inputs -> arithmetic, ties (threshold), iso, tsv, esm (esd)   one merged move for each tensor; svd, polar
    merged moves -> kept, search                          where all of them are needed first: layers' norms, alpha
    base and merged moves -> merge                        the checkpoint; sizes: how far each task is from it

`average` takes the weights themselves. `methods` lists all of them by name.
"""
