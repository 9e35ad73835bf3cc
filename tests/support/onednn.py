"""Tests of what only oneDNN does, which TensorFlow leaves off on older CPUs."""

import pytest
from tensorflow.python.util import _pywrap_util_port

IS_ON = _pywrap_util_port.IsMklEnabled()
needs_onednn = pytest.mark.skipif(not IS_ON, reason="TensorFlow does not use oneDNN here")
