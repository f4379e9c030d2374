"""Where tensors are encoded: local processes or a Dask cluster, with results in task order."""
