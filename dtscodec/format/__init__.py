"""The pack on disk: format version 1 (``spec/dtscodec.md``). Imports neither torch nor the client of the Hub."""
