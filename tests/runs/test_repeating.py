"""The command in run.json repeats the run."""

import shlex
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click.testing
import pytest

from keras_resnet import runs, training
from keras_resnet.cli import main
from keras_resnet.runs import repeating
from keras_resnet.runs.training import command_of

ASKED = [
    {},
    {"model": "ResNet18", "weights": "imagenet", "epochs": 3, "image_size": (96, 160)},
    {"weights": Path("my weights.h5"), "dropout": 0.5, "balanced": True, "seed": 7},
    {"task": "multilabel", "thresholds": "f1", "loss": "asymmetric", "on_error": "skip"},
    {"thresholds": 0.25, "recipe": "a1", "ema": 0.99, "milestones": (0.5, 0.75)},
    {"synchronized": False, "strategy": "multiworker", "hosts": ["a", "b"], "timeout": 10.0},
    {"synchronized": True, "cache": "memory", "validation": 0.0, "profile": True},
    {"augmentation": "strong", "learning_rate": 1e-5, "precision": "bfloat16", "crop": 0.9},
    {"shortcut": "A", "save_every": 100, "steps_per_execution": 4, "optimizer": "lamb"},
    {"layer_decay": 0.75, "drop_path": 0.1, "batch_size": 8, "label-smoothing": 0.1},
]


def plain(given):
    return {name.replace("-", "_"): str(value) for name, value in given.items()}


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("job", ["train", "cross_validate"])
def test_is_parsed_to_what_was_asked(monkeypatch, job, asked):
    asked = asked | ({"folds": 3} if job == "cross_validate" else {})
    called = []
    monkeypatch.setattr(runs, job, lambda *given, **options: called.append((given, options)))
    words = shlex.split(command_of("my pets", "runs/it's", {**asked, "verbose": 2}))
    assert words[0] == "keras-resnet"
    result = click.testing.CliRunner().invoke(main, words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (((source, output), given),) = called
    assert (source, str(output)) == ("my pets", "runs/it's")
    defaults = _defaults()
    changed = {name: value for name, value in given.items() if value != defaults.get(name)}
    assert plain(changed) == plain(asked)


def _defaults():
    """What the command passes on by default."""
    called = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "train", lambda *given, **options: called.append(options))
        click.testing.CliRunner().invoke(main, ["train", "--data", "a", "--output", "b"])
    return called[0]


def test_is_python_where_there_is_no_option():
    recipe = training.Recipe(epochs=2)
    text = command_of("pets", "run", {"exports": Path("served"), "recipe": recipe, "keep": 5})
    called = []
    code = text.replace("from keras_resnet import runs", "")
    fake = type("runs", (), {"train": lambda *given, **options: called.append((given, options))})
    exec(code, {"runs": fake, "Recipe": training.Recipe})
    assert called == [(("pets", "run"), {"recipe": recipe, "exports": "served", "keep": 5})]


def test_a_run_takes_from_its_beginning_to_its_end():
    began = datetime.now(timezone.utc) - timedelta(seconds=90)
    facts = {**repeating.begun(None, {}), "started": began.isoformat()}
    assert 90 <= repeating.ended(facts)["seconds"] < 120
    assert repeating.ended(facts)["started"] == facts["started"]
