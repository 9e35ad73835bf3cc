"""Ctrl-C ends each command with one line, and what can be continued says so."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import PIL.Image
import pytest
from support.commands import run
from support.processes import COMMAND, Run, wait_for
from support.terminals import OnTerminal

import keras_resnet

COMMANDS = {
    "train": ["train", "--data", "digits", "--output", "{}"],
    "cross_validate": ["train", "--data", "digits", "--folds", "2", "--output", "{}"],
    "find_learning_rate": ["train", "--data", "digits", "--find-learning-rate", "--output", "{}"],
    "tune": ["tune", "--data", "digits", "--output", "{}"],
    "experiment": ["experiment", "gradients", "--output", "{}"],
    "evaluate": ["evaluate", "{}"],
    "predict": ["predict", "{}", "7.png"],
    "explain": ["explain", "{}", "7.png", "--output", "{}"],
    "export": ["export", "{}", "--output", "{}"],
    "bench": ["bench", "{}"],
    "soup": ["soup", "{}", "{}", "--output", "{}"],
}
NOTHING_KEPT = "Interrupted. The same command starts from the beginning."


@pytest.mark.usefixtures("signals")
class TestEveryCommand:
    @pytest.mark.parametrize("job", COMMANDS)
    def test_ends_with_a_line(self, monkeypatch, tmp_path, job):
        def work(*_, **options):
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("Ctrl-C was ignored")

        monkeypatch.setattr(f"keras_resnet.runs.{job}", work)
        command = [each.format(tmp_path / "place") for each in COMMANDS[job]]
        plain, answered = run(*command), run(*command, "--json")
        assert plain.exit_code == answered.exit_code == 130, plain.stderr
        assert plain.stdout == f"{NOTHING_KEPT}\n"
        assert json.loads(answered.stdout) == {"interrupted": NOTHING_KEPT}
        assert not [*tmp_path.iterdir()]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_whatever_libraries_make_of_it(self, monkeypatch):
        """Callbacks may turn it into an error of their own, or swallow it."""

        def work(*_, **options):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError("a module could not be loaded") from None

        monkeypatch.setattr("keras_resnet.runs.bench", work)
        result = run("bench", "exported")
        assert (result.exit_code, result.stdout) == (130, f"{NOTHING_KEPT}\n")

    def test_a_second_one_ends_the_process(self, monkeypatch):
        def work(*_, **options):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
                raise

        monkeypatch.setattr("keras_resnet.runs.bench", work)
        assert run("bench", "exported").exit_code == 130

    def test_what_goes_on_says_how(self, monkeypatch, tmp_path):
        def stops(*_, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr("keras_resnet.data.load", stops)
        result = run("train", "--data", "digits", "--output", tmp_path / "run")
        message = "Interrupted: the same command continues from what is saved.\n"
        assert (result.exit_code, result.stdout) == (130, message)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A model, and a folder of images that keep it busy for some seconds."""
    folder = tmp_path_factory.mktemp("many")
    model = keras_resnet.CIFARResNet(8, include_preprocessing=True)
    model.save(folder / "model.keras")
    images = folder / "images"
    images.mkdir()
    PIL.Image.fromarray(np.zeros((300, 300, 3), "uint8")).save(images / "0.png")
    for number in range(1, 8000):
        os.link(images / "0.png", images / f"{number}.png")
    return folder


@pytest.mark.slow
class TestProcesses:
    def test_predict_leaves_nothing(self, many):
        before = {*many.iterdir()}
        process = OnTerminal(
            *(*COMMAND, "predict", many / "model.keras", many / "images"),
            *("--csv", many / "found.csv"),
        )
        wait_for(lambda: b"left" in process.raw or process.process.poll() is not None)
        process.process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.left == [NOTHING_KEPT]
        assert {*many.iterdir()} == before

    def test_tune_continues(self, tmp_path):
        output, log = tmp_path / "search", tmp_path / "log"
        space = {"block": "basic", "width": 0.5, "conv2_blocks": 1, "conv3_blocks": 1}
        choices = [f"--set={name}={json.dumps(value)}" for name, value in space.items()]
        command = ["tune", "--data", "digits", "--output", output, "--image-size", 8, *choices]
        command += ["--trials", 2, "--algorithm", "random", "--retrain-epochs", 0]
        process = Run(*command, "--epochs", 40, log=log)
        trials = output / "search" / "trials"
        wait_for(lambda: [*trials.glob("*/run/**/after-*")] or process.process.poll() is not None)
        process.process.send_signal(signal.SIGINT)
        text, _ = process.process.communicate(timeout=60)
        assert process.process.returncode == 130
        assert text.splitlines()[-1].endswith("The same command continues from there.")
        assert log.read_text() == "Stopping after this step. Press Ctrl-C again to abort it.\n"
        assert not {"\r", "\x1b"} & {*text}
        kept = [*trials.glob("*/run/**/after-*")]
        assert kept
        again = subprocess.run(
            [*COMMAND, *map(str, command), "--epochs", "40", "--json"],
            capture_output=True,
            text=True,
        )
        answer = json.loads(again.stdout)
        assert (answer["trials"], answer["failed"]) == (2, 0)
        assert not any(each.exists() for each in kept)

    def test_a_second_one_ends_training_at_once(self, tmp_path):
        command = ["train", "--data", "digits", "--model", "CIFARResNet8", "--epochs", 100]
        process = Run(*command, "--output", tmp_path / "run", log=tmp_path / "log")
        wait_for(lambda: [*(tmp_path / "run" / "checkpoints").rglob("after-*")])
        for _ in range(2):
            process.process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        assert process.process.wait(30) in (-signal.SIGINT, 130)

    def test_training_shows_bars_on_a_terminal(self, tmp_path):
        command = ["train", "--data", "digits", "--model", "CIFARResNet8", "--epochs", 2]
        command += ["--batch-size", 4, "--output", tmp_path / "run", "--json"]
        process = OnTerminal(*COMMAND, *command, piped=True, columns=160)
        assert process.wait() == 0
        assert json.loads(process.output)["best_epoch"] in (1, 2)
        epoch = r"Epoch 2/2 .* [\d,]+/[\d,]+ images +[\d,.]+ images/s +0:\d+:\d+ left +loss .*, acc"
        run = r"Training .* 1/2 epochs .* 0:\d+:\d+ left +loss .* val_loss"
        for pattern in (epoch, run):
            assert any(re.search(pattern, line) for line in process.drawn), pattern
        first, *_ = (line for line in process.left if line.startswith("Epoch 1/2: "))
        assert "val_accuracy" in first
        assert not any("━" in line for line in process.left)

    def test_json_on_a_terminal_is_one_object(self, tmp_path):
        process = OnTerminal(*COMMAND, "data", "digits", "--json", columns=10_000)
        assert process.wait() == 0
        assert json.loads(process.left[-1])["name"] == "digits"
