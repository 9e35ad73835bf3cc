"""Results of trainings that nobody has done, for pages and reports."""

import json
from unittest import mock

from keras_resnet import experiments
from keras_resnet.experiments import pages


def curve(error, test_error, epochs=2):
    """What `trainings.train` finds, with errors that end where it is wanted."""
    return {
        **{key: [1.0] * epochs for key in ("loss", "test_loss")},
        "error": [0.9] * (epochs - 1) + [error],
        "test_error": [0.9] * (epochs - 1) + [test_error],
        **{"parameters": 1000, "seconds": 1.0},
    }


def page_of(folder, name, results, language="", **changes):
    """The page that an experiment makes of results, and its record."""
    settings = experiments.find(name).chosen({"epochs": 2, **changes})
    (folder / "results").mkdir(parents=True, exist_ok=True)
    recorded = {"experiment": name, "settings": settings.recorded(), "data": "made-up"}
    (folder / "experiment.json").write_text(json.dumps(recorded))
    for trial, found in results.items():
        found = {"seconds": 1.0, **found, "machine": "none"}
        (folder / "results" / f"{trial}.json").write_text(json.dumps(found))
    with mock.patch.object(pages, "svg", return_value="<svg/>"):  # most of the time
        record = experiments.rebuild(folder)
    assert not record.missing
    return " ".join((folder / f"report{language}.md").read_text(encoding="utf-8").split()), record
