"""A net learns the same on one device, on two, and in two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import distributed
import numpy as np
import pytest

PROGRAM = Path(distributed.__file__)


def start(strategy, file, options, tf_config=None):
    environment = {**os.environ, "TF_CONFIG": json.dumps(tf_config)} if tf_config else None
    return subprocess.Popen(
        [sys.executable, PROGRAM, strategy, file, json.dumps(options)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process, file):
    output = process.communicate(timeout=200)
    assert process.returncode == 0, output
    with np.load(file) as arrays:
        told, *weights = (arrays[name] for name in arrays.files)
    return *json.loads(str(told)), weights


def two_devices(folder, **options):
    file = folder / "two.npz"
    return outcome(start("cpu:2", file, options), file)


def two_processes_of(folder, options):
    """Two processes that are to train together, with options of their own."""
    sockets = [socket.socket() for _ in options]
    for each in sockets:
        each.bind(("localhost", 0))
    workers = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        start(
            "multiworker",
            folder / f"worker-{index}.npz",
            its_options,
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}},
        )
        for index, its_options in enumerate(options)
    ]


def two_processes(folder, **options):
    started = two_processes_of(folder, [options] * 2)
    files = (folder / f"worker-{index}.npz" for index in range(2))
    return [outcome(process, file) for process, file in zip(started, files, strict=True)]


def assert_same(ours, theirs, tolerance=1e-4):
    losses, history, weights = ours
    their_losses, their_history, their_weights = theirs
    np.testing.assert_allclose(losses, their_losses, atol=tolerance)
    for name in history:
        np.testing.assert_allclose(history[name], their_history[name], atol=10 * tolerance)
    # What a step of gradient descent makes of a rounding error.
    for mine, other in zip(weights, their_weights, strict=True):
        np.testing.assert_allclose(mine, other, atol=20 * tolerance, rtol=20 * tolerance)


def test_two_processes_and_two_devices_learn_what_one_does(tmp_path):
    # In float64: this net makes 1e-3 of a rounding error of float32 within eight steps, and another
    # number of threads rounds in another way.
    alone = distributed.train(None, dtype="float64")
    assert len(alone[0]) == 3 * 4
    options = dict(synchronized=True, dtype="float64")
    chief, worker = two_processes(tmp_path, **options)
    assert_same(chief, alone, tolerance=1e-6)
    assert_same(two_devices(tmp_path, **options), alone, tolerance=1e-6)
    assert chief[:2] == worker[:2]
    for mine, other in zip(chief[2], worker[2], strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"recipe": {"ema": 0.9, "clip_norm": 0.5, "label_smoothing": 0.1}},
        {"recipe": {"mixup": 0.3, "nesterov": False, "milestones": [0.3, 0.6]}},
        {"steps_per_execution": 3},
    ],
)
def test_whatever_the_recipe_two_devices_learn_what_one_does(tmp_path, options):
    options = {**options, "dtype": "float64"}
    alone = distributed.train(None, **options)
    assert_same(two_devices(tmp_path, synchronized=True, **options), alone, tolerance=1e-6)


@pytest.mark.slow
def test_workers_that_do_not_synchronize_have_the_same_statistics(tmp_path):
    chief, worker = two_processes(tmp_path, synchronized=False, recipe={"epochs": 1})
    for mine, other in zip(chief[2], worker[2], strict=True):
        np.testing.assert_array_equal(mine, other)


def test_workers_with_other_data_do_not_begin(tmp_path):
    started = two_processes_of(tmp_path, [{"recipe": {"epochs": 1}}, {"seed": 1}])
    for process in started:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 1
        assert "seed is 1 on worker 1, 0 on the chief" in errors


OVERFLOWING = """
import json
import keras, numpy as np, tensorflow as tf
from keras_resnet import data, training
from keras_resnet.training.loop import training_function
strategy = training.strategy("cpu:2")
with strategy.scope():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(10, "softmax")(inputs))
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "mse")
    model.optimizer.build(model.trainable_variables)
source = data.load("digits")
objective = training.task_of(source).objective(source, training.Recipe())
step = training_function(model, objective)
images, labels = np.ones((8, 3), "float32"), np.zeros(8, int)
images[0, 0] = np.inf  # of the first device alone
batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4).repeat()
found = strategy.distribute_datasets_from_function(lambda _: batches)
before, scale = model.get_weights(), float(model.optimizer.dynamic_scale.numpy())
step(iter(found), tf.constant(0.0), 1)
same = all((one == other).all() for one, other in zip(before, model.get_weights()))
print(json.dumps([same, float(model.optimizer.dynamic_scale.numpy()) / scale]))
"""


def test_a_step_that_overflows_on_one_device_is_left_out_by_all():
    process = subprocess.run(
        [sys.executable, "-c", OVERFLOWING], capture_output=True, text=True, timeout=100
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == [True, 0.5]
