"""Settings of all tests."""

import os

from hypothesis import settings

# A shared machine may stall any example. CI repeats the same examples; elsewhere new ones are tried each time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
