"""What becomes of a run that is killed, asked to stop, or loses a worker."""

import functools
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import small
from processes import Run, newest, wait_for

from keras_resnet import training

PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

TRAIN = [
    "train",
    *("--data", "digits", "--model", "CIFARResNet8", "--image-size", "8", "--learning-rate", "0.3"),
    *("--save-every", "7", "--json"),
]
LAUNCH = ["launch", "--workers", "2", "--"]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "run"


def start(*before, output, epochs=6):
    return Run(
        *before, *TRAIN, "--epochs", epochs, "--output", output, log=output.parent / "log.txt"
    )


def _has_gone(run, worker):
    return worker not in run.workers()


def killed_thrice(output, victims, *before):
    """Run until three processes have been killed, each in an epoch of its own; the answer."""
    run = start(*before, output=output, epochs=8)
    for number, victim in enumerate(victims):
        wait_for(lambda number=number: newest(output) >= 3 + 5 * number)
        run.kill(victim)
        if not before:
            assert run.wait()[0] == -signal.SIGKILL
            run = start(output=output, epochs=8)
        else:
            wait_for(functools.partial(_has_gone, run, victim))
    code, answer = run.wait(300)
    assert code == 0, run.log.read_text()
    return answer


KILLED = """
import os, signal, sys
import keras, small
from keras_resnet import training
steps = []
def count(batch, logs):
    steps.append(batch)
    if len(steps) == 16:
        os.kill(os.getpid(), signal.SIGKILL)
callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=count)]
recipe = training.Recipe(epochs=3, batch_size=32, ema=0.9)
training.train(small.model(), small.digits(), recipe, checkpoints=sys.argv[1], save_every=4,
               callbacks=callbacks, verbose=0)
"""


def test_a_killed_run_continues_within_its_epoch(tmp_path):
    """An epoch has ten steps, and is saved after 4, 8 and 10: of step 16, after 14."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "run"], env=PATHS)
    recipe = training.Recipe(epochs=3, batch_size=32, ema=0.9)
    expected = training.train(small.model(), small.digits(), recipe, verbose=0)
    assert process.wait(100) == -signal.SIGKILL
    steps, model = [], small.model()
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(batch)
    )
    options = dict(checkpoints=tmp_path / "run", save_every=4, verbose=0)
    result = training.train(model, small.digits(), recipe, callbacks=[count], **options)
    assert steps == [*range(4, 10), *range(10)]
    assert result.best_epoch == expected.best_epoch
    for name, values in expected.history.items():
        np.testing.assert_allclose(result.history[name], values, rtol=1e-2)


def test_all_workers_stop_at_the_same_step_when_one_is_asked_to(output):
    run = start(*LAUNCH, output=output, epochs=200)
    wait_for(lambda: newest(output) >= 2)
    os.kill(run.workers()[1], signal.SIGTERM)
    code, answer = run.wait(60)
    assert code == 0, run.log.read_text()
    assert "The same command continues from there" in answer["interrupted"]


def test_when_a_worker_is_lost_the_others_exit_with_a_message(output):
    run = start(*LAUNCH, output=output, epochs=200)
    wait_for(lambda: newest(output) >= 2)
    run.kill(1)
    code, _ = run.wait(60)
    assert code in (1, 137)
    log = run.log.read_text()
    assert "worker 0 lost another worker, which has ended or does not answer" in log
    assert f"The last good checkpoint is '{output}/checkpoints/scratch/after-" in log
    assert "Start all workers again with the same command" in log


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one process", "worker, chief, worker"])
def test_three_kills_change_nothing(output, tmp_path, case):
    before = [] if case == "one process" else ["launch", "--workers", "2", "--restarts", "3", "--"]
    victims = [0, 0, 0] if case == "one process" else [1, 0, 1]
    # As many processes, for each has BatchNormalization statistics of its own.
    code, expected = start(*before, output=tmp_path / "whole" / "run", epochs=8).wait()
    assert code == 0
    answer = killed_thrice(output, victims, *before)
    assert answer["test_accuracy"] == pytest.approx(expected["test_accuracy"], abs=0.005)
