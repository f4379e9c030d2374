"""Packs as users hold them: opening, directories of packs, byte counts, decoding in plain numpy. Imports no torch."""
