import json

import pytest
from commands import refused, run

from keras_resnet import training


@pytest.fixture
def started(monkeypatch):
    """The commands that would have been started."""
    commands = []

    def start(command, workers, restarts=0, *, search=False):
        commands.append(command[3:])
        return 0

    monkeypatch.setattr("keras_resnet.launch.launch", start)
    return commands


@pytest.mark.parametrize("command", ["evaluate", "predict", "demo", "launch", "trian"])
def test_what_would_be_done_twice_is_refused(started, command):
    line = refused(run("launch", "--workers", 2, "--", command, "--data", "digits"))
    assert f"launch: '{command}' would run 2 times" in line
    assert not started


@pytest.mark.parametrize(
    "strategy", [["--strategy", "auto"], ["--strategy=mirrored"], ["--strategy", "cpu:2"]]
)
def test_workers_that_know_nothing_of_each_other_are_refused(started, strategy):
    line = refused(run("launch", "--workers", 2, "--", "train", "--data", "digits", *strategy))
    assert "2 processes would train a model each, all in one folder" in line
    assert not started
    result = run("launch", "--workers", 1, "--", "train", "--data", "digits", *strategy)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["train"], ["train", "--strategy", "multiworker"]),
        (["train", "--strategy=multiworker"], ["train", "--strategy=multiworker"]),
        (
            ["train", "--strategy", "auto", "--strategy", "multiworker"],
            ["train", "--strategy", "auto", "--strategy", "multiworker"],
        ),
        (["tune", "--strategy", "auto"], ["tune", "--strategy", "auto"]),
    ],
)
def test_what_is_shared_is_started(started, command, expected):
    assert run("launch", "--workers", 2, "--", *command).exit_code == 0
    assert started == [expected]


@pytest.mark.parametrize("command", ["train", "tune"])
@pytest.mark.parametrize("code", [0, 130])
def test_a_command_that_was_asked_to_stop_says_so(monkeypatch, tmp_path, command, code):
    def interrupted(*_, **options):
        raise training.Interrupted("Interrupted: saved.", code)

    monkeypatch.setattr(f"keras_resnet.runs.{command}", interrupted)
    result = run(command, "--data", "digits", "--output", tmp_path, "--json")
    assert result.exit_code == code, result.stderr
    assert json.loads(result.stdout) == {"interrupted": "Interrupted: saved."}
