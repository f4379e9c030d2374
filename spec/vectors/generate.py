"""Placeholder"""
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parents[1]))
import decoder
from valid_cases import valid_cases
from builder import safetensors
for c in valid_cases():
    data = c.parts.file()
    base = {k: decoder.Tensor(*v) for k, v in c.maker.base.items()}
    try:
        got, files = decoder.decode(data, base)
    except decoder.Refused as e:
        print("REFUSED", c.name, e); continue
    ok = {k: tuple(v) for k, v in got.items()} == {k: tuple(v) for k, v in c.maker.expected.items()}
    print("ok " if ok else "DIFF", c.name, len(data), len(safetensors(c.maker.base)), len(safetensors(c.maker.expected)))
    if not ok:
        for k in got:
            if tuple(got[k]) != tuple(c.maker.expected[k]): print("   ", k, got[k].data.hex()[:200], c.maker.expected[k].data.hex()[:200])
