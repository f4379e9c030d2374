"""Building blocks of the format: packed bits, canonical JSON, zstd frames, byte planes, safetensors headers."""
