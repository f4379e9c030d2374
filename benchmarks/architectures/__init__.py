"""All functions of dtscodec on small models of many architectures, as their own libraries save and load them.

``python -m benchmarks.architectures --record`` prints the table and writes it to ``docs/architectures.md``.
"""
