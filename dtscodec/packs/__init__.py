"""Packs as users hold them: opening, directories of packs, byte counts, and decoding in plain numpy. Needs no torch."""
