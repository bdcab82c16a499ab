"""Which release of torch the tests run with: most know the one that the README names."""

import pytest
import torch

RELEASE = tuple(int(part) for part in torch.__version__.split(".")[:2])

KNOWN = RELEASE >= (2, 13)
"""Whether torch itself does what these tests take from it; some of it was mended after the oldest one supported."""

newer_torch = pytest.mark.skipif(not KNOWN, reason="torch itself cannot, or is wrong there, in older releases")
