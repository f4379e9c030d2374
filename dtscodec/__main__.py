"""``python -m dtscodec``."""

import sys

from dtscodec.cli.main import main

sys.exit(main())
