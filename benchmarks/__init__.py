"""Programs that measure dtscodec; not part of the installed package.

Benchmarks record their figures (``RESULT.md``, ``result.json``) with ``--record``:

- `demo`: one fine-tune from training to the decoded model, as a user would go about it.
- `fidelity`: bytes against behaviour, for our presets and their peers.
- `merging`: merged bases, packs against them, fusion, calibration.
- `speed`: time, memory and bytes moved by an encode.
- `decode`: time of decoding and of packs in running models.
- `architectures`: all functions of dtscodec on small models of many architectures (``docs/architectures.md``).
- `memory`, `roofline`: peak memory of commands; floors of the GPU kernels.

Checks of a change, which compare two checkouts and record nothing:

- `same_packs`: ids of packs made in every way.
- `paired`: encode, decode and switch, timed in turn.
- `traced_files`: the files that one weight matrix passes.

`common` has the modules that they share.
"""
