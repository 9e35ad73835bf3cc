"""Exported models that need no TensorFlow are run without it."""

import os
import subprocess
import sys

import numpy as np
import pytest

import keras_resnet
from keras_resnet import export

PROGRAM = """
import sys
import numpy as np
from keras_resnet import export

np.save(sys.argv[2], export.load(sys.argv[1])(np.load(sys.argv[3])))
print([each for each in ("tensorflow", "keras") if each in sys.modules])
"""


@pytest.mark.parametrize(
    ("write", "suffix", "needs"),
    [(export.litert, ".tflite", ["ai_edge_litert"]), (export.onnx, ".onnx", ["tf2onnx", "onnx"])],
)
def test_a_file_is_run_by_its_runtime_alone(tmp_path, write, suffix, needs):
    for module in needs:
        pytest.importorskip(module)
    model = keras_resnet.CIFARResNet(8)
    file, images = tmp_path / f"net{suffix}", np.ones((2, 32, 32, 3), "float32")
    write(model, file, verified=False, verbose=False)
    np.save(tmp_path / "images.npy", images)
    names = [str(each) for each in (file, tmp_path / "out.npy", tmp_path / "images.npy")]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, env={**os.environ}
    )
    assert ended.stdout.splitlines() == ["[]"], ended.stderr
    np.testing.assert_allclose(np.load(names[1]), model(images), rtol=1e-3, atol=1e-5)


def test_a_function_is_not_hidden_by_its_file():
    import keras_resnet.export.saved_model
    import keras_resnet.export.verify  # noqa: F401

    assert callable(export.saved_model)
    assert callable(export.verify)
