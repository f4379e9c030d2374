"""Local files: reading by range, atomic outputs, spools, append-only record files."""
