"""What works where only the core dependencies are installed."""

import os
import subprocess
import sys

PROGRAM = """
import sys
for extra in ("keras_tuner", "tensorflow_datasets", "importlib_resources", "tensorflow_serving"):
    sys.modules[extra] = None  # as if it were not installed

import keras_resnet
from keras_resnet import data, export, training

digits = data.load("digits")
model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
training.train(model, digits, training.Recipe(epochs=1, batch_size=256), verbose=0)
print("trained")
export.saved_model(model, sys.argv[1], verbose=False)
print("exported")
for use in (lambda: keras_resnet.tuning, lambda: data.load("tfds:beans")):
    try:
        use()
    except ImportError as error:
        print(error)
"""


def test_training_and_exporting_need_no_extra_and_the_rest_names_its_own(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "1")],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.splitlines() == [
        "trained",
        "exported",
        "keras_tuner is not installed: pip install 'keras_resnet[tune]'.",
        "tensorflow_datasets and importlib_resources are not installed: "
        "pip install 'keras_resnet[tfds]'.",
    ], ended.stderr
    assert (tmp_path / "1" / "assets.extra" / "tf_serving_warmup_requests").exists()
