"""Executors for encoding: local processes or a Dask cluster, with results in the order of the tasks."""
