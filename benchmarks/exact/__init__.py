"""Packs that decode bit for bit: bytes, speed and memory beside those of lossless peers.

Peers are packages of PyPI, which are installed into a folder of the cache (see `peers.packages`). Every scheme goes
from files to files, in a process of its own, on one core. What comes back is compared with the fine-tune.
"""
