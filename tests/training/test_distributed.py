"""A model learns the same on one device, on two, and in two processes."""

import json
import socket
import subprocess
import sys

import distributed
import numpy as np
import pytest
from distributed import outcomes, start

# In float64: within eight steps, a rounding error of float32 grows to 1e-3, and another number of
# threads rounds in another way.
EXACTLY = dict(dtype="float64", synchronized=True)
TASKS = ("classification", "multilabel", "regression")


def two_processes_of(folder, jobs):
    """Two processes that are to train together, with jobs of their own."""
    sockets = [socket.socket() for _ in jobs]
    for each in sockets:
        each.bind(("localhost", 0))
    workers = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        start(
            "multiworker",
            folder / f"worker-{index}",
            its_jobs,
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}},
        )
        for index, its_jobs in enumerate(jobs)
    ]


def together(processes, folder):
    """What each of two processes has learned, for each of their jobs."""
    found = enumerate(processes)
    return [outcomes(process, folder / f"worker-{index}") for index, process in found]


def assert_same(ours, theirs, tolerance=1e-6):
    losses, history, weights = ours
    their_losses, their_history, their_weights = theirs
    np.testing.assert_allclose(losses, their_losses, atol=tolerance)
    assert history.keys() == their_history.keys()
    for name in history:
        np.testing.assert_allclose(
            history[name], their_history[name], rtol=1e-5, atol=10 * tolerance
        )
    # What a step of gradient descent makes of a rounding error.
    for mine, other in zip(weights, their_weights, strict=True):
        np.testing.assert_allclose(mine, other, atol=20 * tolerance, rtol=20 * tolerance)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """What two processes, two devices and one device have learned, at the same time."""
    folder = tmp_path_factory.mktemp("learned")
    different = [[EXACTLY, {"recipe": {"epochs": 1}, "seed": index}] for index in range(2)]
    processes = two_processes_of(folder, different)
    devices = start("cpu:2", folder / "devices", [{**EXACTLY, "task": task} for task in TASKS])
    alone = {task: distributed.train(None, dtype="float64", task=task) for task in TASKS}
    on_devices = dict(zip(TASKS, outcomes(devices, folder / "devices"), strict=True))
    return together(processes, folder), on_devices, alone


def test_two_processes_learn_what_one_does(learned):
    ((chief, _), (worker, _)), _, alone = learned
    assert len(alone["classification"][0]) == 2 * 4
    assert_same(chief, alone["classification"])
    assert chief[:2] == worker[:2]
    for mine, other in zip(chief[2], worker[2], strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("task", TASKS)
def test_two_devices_learn_what_one_does(learned, task):
    _, on_devices, alone = learned
    assert_same(on_devices[task], alone[task])


@pytest.mark.slow
def test_whatever_the_recipe_two_devices_learn_what_one_does(tmp_path):
    jobs = [
        {**EXACTLY, **options}
        for options in (
            {"recipe": {"ema": 0.9, "clip_norm": 0.5, "label_smoothing": 0.1}},
            {"recipe": {"mixup": 0.3, "nesterov": False, "milestones": [0.3, 0.6]}},
            {"recipe": {"optimizer": "adamw", "clip_norm": 0.5, "layer_decay": 0.7}},
            {"recipe": {"optimizer": "lamb", "clip_norm": 0.5, "weight_decay": 0.1}},
            {"steps_per_execution": 3},
        )
    ]
    for job, found in zip(jobs, outcomes(start("cpu:2", tmp_path, jobs), tmp_path), strict=True):
        assert_same(found, distributed.train(None, **job))


@pytest.mark.slow
def test_workers_that_do_not_synchronize_have_the_same_statistics(tmp_path):
    options = dict(synchronized=False, recipe={"epochs": 1})
    (chief,), (worker,) = together(two_processes_of(tmp_path, [[options]] * 2), tmp_path)
    for mine, other in zip(chief[2], worker[2], strict=True):
        np.testing.assert_array_equal(mine, other)


def test_workers_with_other_data_do_not_begin(learned):
    for _, message in learned[0]:
        assert message == "the workers differ: seed is 1 on worker 1, 0 on the chief."


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
