"""What could be imported and called before the redesign still can be."""

import dataclasses
import importlib
import inspect
import json
from pathlib import Path

import pytest

from keras_resnet.training import Execution

# Name, and for what can be called [argument, kind, default] for each argument.
NAMES = json.loads(
    (Path(__file__).parent / "fixtures" / "before_redesign" / "names.json").read_text()
)
# In `names.json` these are options of a function; now they are also fields of an `Execution`.
EXECUTED = {field.name: repr(field.default) for field in dataclasses.fields(Execution)}
# What the changelog says is elsewhere for good, and defaults that the data, the model
# or the optimizer decide now.
MOVED = {
    f"keras_resnet.blocks.{name}": f"keras_resnet.checks.{name}"
    for name in ("check_activation", "check_data_format", "check_positive", "is_count")
}
CHANGED = {
    ("keras_resnet.tuning.search", "objective"): "None",
    ("keras_resnet.training.Recipe", "learning_rate"): "None",
    ("keras_resnet.training.Recipe", "weight_decay"): "None",
    ("keras_resnet.export.latencies", "batch_sizes"): "None",
}


def found(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", NAMES)
def test_still_imports_and_takes_its_arguments(name):
    thing, former = found(MOVED.get(name, name)), NAMES[name]
    if former is None:
        return
    now = inspect.signature(thing).parameters
    positional = [argument for argument, kind, _ in former if kind == "POSITIONAL_OR_KEYWORD"]
    assert [
        parameter.name
        for parameter in now.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ][: len(positional)] == positional
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in now.values())
    for argument, kind, default in former:
        if kind in ("VAR_KEYWORD", "VAR_POSITIONAL"):
            assert any(parameter.kind.name == kind for parameter in now.values())
        elif argument in now:
            given = now[argument].default
            given = None if given is inspect.Parameter.empty else repr(given)
            assert given == CHANGED.get((name, argument), default)
        else:
            assert takes_more
            assert EXECUTED[argument] == default
