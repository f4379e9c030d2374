"""What is on disk: the pack format, version 1 (``spec/dtscodec.md``). Knows neither torch nor the Hub."""
