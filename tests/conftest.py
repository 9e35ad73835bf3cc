import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from keras_resnet import machine

# As TensorFlow has it, and no command recommends or chooses another setting.
if machine.lacks_onednn():
    os.environ[machine.ONEDNN] = "0"

# The scripts that make the golden fixtures need PyTorch, which the tests do not. Files of fixtures
# hold no examples, and share a name.
collect_ignore_glob = ["golden/make_*.py", "*conftest.py"]


@pytest.fixture
def signals():
    """Signals as they are at a terminal: in the background, a shell has some of them ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    former = {each: signal.signal(each, handler) for each, handler in usual.items()}
    yield
    for each, handler in former.items():
        signal.signal(each, handler)


@pytest.fixture(scope="session")
def processes():
    """Processes that begin with TensorFlow imported, which takes longer than what they do."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_resnet.data.sources", "keras_resnet.tuning.searches"])
    return context


@pytest.fixture(scope="session")
def assets():
    """The folder of real weights and images, where this machine has one."""
    folder = os.environ.get("KERAS_RESNET_ASSETS")
    if not folder:
        pytest.skip("KERAS_RESNET_ASSETS is not set: no folder of real weights and images")
    return Path(folder)


@pytest.fixture(scope="session")
def cifar10_test(assets):
    """The contents of 10,000 JPEG files, and their classes."""
    import tensorflow as tf

    features = {"image": tf.io.FixedLenFeature([], tf.string),
                "label": tf.io.FixedLenFeature([], tf.int64)}  # fmt: skip
    records = tf.data.TFRecordDataset(str(assets / "cifar10_jpeg_test.tfrecord.gz"), "GZIP")
    examples = tf.io.parse_example(next(iter(records.batch(20_000))), features)
    assert len(examples["label"]) == 10_000
    return examples["image"], examples["label"].numpy()
