"""Files in remote storage and on the Hub: paths, reading by range, staging, uploads. No torch."""
