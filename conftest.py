"""What the tests and the examples in docstrings share."""

import gc
import os
import sys

import pytest

# Before anything imports TensorFlow: its notices say nothing about a test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Trainings that name no precision do the same on every machine.
os.environ.setdefault("KERAS_RESNET_PRECISION", "float32")

# Tests that run side by side share the cores: with as many threads each, they would wait for each
# other.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", f"{max(1, (os.cpu_count() or 1) // workers)}")

# Keras and TensorFlow keep a million objects that Python would look through again and again.
gc.set_threshold(50_000, 50, 100)


@pytest.fixture(scope="module", autouse=True)
def forgotten_models():
    """Let Keras forget a module's models, and Python what is left of them."""
    gc.freeze()
    yield
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()


# They build large models, and look at their shapes alone.
_OF_SHAPES = ("keras_resnet/zoo.py", "tests/analysis/test_complexity.py")


@pytest.fixture(autouse=True)
def undrawn_kernels(request):
    """Draw no kernels that nobody looks at."""
    if not request.node.nodeid.startswith(_OF_SHAPES):
        yield
        return
    from keras_resnet.initialization import kernels_to_be_loaded

    with kernels_to_be_loaded():
        yield
