"""Codes that the format does not have, for the singular vectors of components: their bytes are counted, not written.

Decision record 017 quotes the figures of `RESULT.md`.
"""
