"""Programs that measure dtscodec; not part of the installed package."""
