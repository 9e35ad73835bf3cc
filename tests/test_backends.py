import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden import rule

NETS = ("resnext", "cifar")


def build():
    """One net of each kind of block, the first with groups."""
    import keras_resnet

    yield keras_resnet.ResNet(
        (1, 1),
        filters=(16, 32),
        cardinality=8,
        base_width=16,
        input_shape=(32, 32, 3),
        classes=10,
        classifier_activation=None,
        include_preprocessing=True,
    )
    yield keras_resnet.CIFARResNet(8, classifier_activation=None)


def results():
    """What two small nets with the parameters of the rule make of images, on any backend."""
    from keras_resnet.initialization import kernels_to_be_loaded
    from keras_resnet.pretrained import load_state_dict, state_dict_shapes

    # Drawing what is replaced anyway takes JAX longer than all the rest.
    with kernels_to_be_loaded():
        nets = list(build())
    arrays = {}
    for name, net in zip(NETS, nets, strict=True):
        load_state_dict(net, rule.state_dict(state_dict_shapes(net)))
        images = rule.image((2, 32, 32, 3))
        if name == "resnext":
            images = 128 + 50 * images
        arrays[f"{name}-inference"] = np.asarray(net(images, training=False))
        arrays[f"{name}-training"] = np.asarray(net(images, training=True))
        arrays[f"{name}-average"] = np.asarray(net.get_layer("conv1_bn").moving_variance)
    return arrays


def run(code, *arguments, **environment):
    """Run code in a fresh interpreter and return what it prints."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


@pytest.fixture(scope="module")
def both_backends(tmp_path_factory):
    """The results on TensorFlow and on JAX."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed: pip install jax")
    path = tmp_path_factory.mktemp("jax") / "results.npz"
    code = (
        "import sys, keras, numpy, test_backends;"
        "assert keras.backend.backend() == 'jax';"
        "numpy.savez(sys.argv[1], **test_backends.results())"
    )
    run(code, path, KERAS_BACKEND="jax")
    return results(), np.load(path)


class TestJAX:
    @pytest.mark.parametrize("kind", ["inference", "training", "average"])
    @pytest.mark.parametrize("net", NETS)
    def test_computes_what_tensorflow_computes(self, both_backends, net, kind):
        tensorflow, jax = (arrays[f"{net}-{kind}"] for arrays in both_backends)
        assert np.ptp(tensorflow) > 0.01
        assert np.abs(tensorflow - jax).max() <= 1e-4 * np.abs(tensorflow).max()


class TestImport:
    def test_brings_in_nothing_heavy(self):
        heavy = (
            *("keras", "tensorflow", "jax", "keras_tuner", "tensorflow_datasets"),
            *("sklearn", "matplotlib", "PIL", "rich", "asyncio", "importlib.metadata"),
        )
        code = "import sys, keras_resnet; print(*sorted(sys.modules))"
        loaded = run(code).split()
        assert "keras_resnet" in loaded
        assert not set(heavy) & set(loaded)

    def test_registers_the_layers_once_keras_is_imported(self):
        names = ("GroupedConv2D", "BatchNormalization", "ZeroPaddedShortcut", "Preprocessing")
        code = (
            "import sys, keras_resnet, keras;"
            "print(*(keras.saving.get_registered_object(f'keras_resnet>{name}').__module__"
            " for name in sys.argv[1:]))"
        )
        assert run(code, *names).split() == ["keras_resnet.layers"] * len(names)

    @pytest.mark.parametrize(
        "before",
        [
            "import keras, keras_resnet",
            "import keras_resnet, importlib.util as util; util.find_spec('keras'); import keras",
            "import keras_resnet, keras.saving",
        ],
    )
    def test_registers_them_whoever_looks_for_keras_first(self, before):
        code = (
            f"{before}; print(keras.saving.get_registered_object('keras_resnet>Conv2D').__name__)"
        )
        assert run(code).split() == ["Conv2D"]
