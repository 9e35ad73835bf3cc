"""An experiment of a moment: numbers are drawn, and who draws them is noted."""

import contextlib
import os
import random
import sys
import types
from dataclasses import dataclass
from functools import partial
from unittest import mock

import jinja2

from keras_resnet import experiments
from keras_resnet.experiments import figures, pages
from keras_resnet.experiments.experiment import Experiment, Report, Settings, Table, Trial
from keras_resnet.pages import figure

TEXT = """# Drawing from {{ data }}

The mean is {{ mean | number }}.

{{ figure("numbers", caption) }}

{{ table("numbers", "name", "number", "fraction") }}

{% include "_repeat.en.md" %}
"""


@dataclass(frozen=True, kw_only=True)
class DrawingSettings(Settings):
    count: int = 5
    widths: tuple[float, ...] = (1.0, 2.0)
    word: str = "none"


def _trials(settings):
    return [
        Trial(f"{width:g}-{seed}", partial(_drawn, settings, width, seed))
        for seed in range(settings.seeds)
        for width in settings.widths
    ]


def _drawn(settings, width, seed, context):
    with (output_of(context) / "drawn.txt").open("a") as file:
        file.write(f"{context.folder.name} {os.getpid()}\n")
    random_numbers = random.Random(seed)
    return {"numbers": [width * random_numbers.random() for _ in range(settings.count)]}


def output_of(context):
    """The folder of the experiment."""
    return context.folder.parents[1]


def drawn(output):
    """The trials that were done, as often as they were."""
    return [line.split()[0] for line in (output / "drawn.txt").read_text().splitlines()]


def _report(settings, results):
    rows = [[name, found["numbers"][-1], found["numbers"][0]] for name, found in results.items()]
    with figure() as (picture, axes):
        figures.spread(axes, range(settings.count), [each["numbers"] for each in results.values()],
                       "numbers")  # fmt: skip
    return Report(
        {"mean": sum(row[1] for row in rows) / len(rows), "caption": "What was drawn."},
        {"numbers": Table(("name", "number", "fraction"), rows, ("fraction",))},
        {"numbers": picture},
    )


def experiment(**changes):
    """The experiment, or another like it."""
    given = {"full": {"count": 50, "widths": (1.0, 2.0, 3.0)}, "takes_data": False, **changes}
    return Experiment("drawing", DrawingSettings, _trials, _report, **given)


@contextlib.contextmanager
def there(texts=None, **changes):
    """Let there be the experiment "drawing", with these texts by language."""
    module = types.ModuleType("keras_resnet.experiments.drawing")
    module.EXPERIMENT = experiment(**changes)
    texts = {f"drawing.{each}.md": (texts or {}).get(each, TEXT) for each in pages.LANGUAGES}
    environment = pages._environment()
    loader = jinja2.ChoiceLoader([jinja2.DictLoader(texts), environment.loader])
    with (
        mock.patch.dict(experiments.EXPERIMENTS, drawing="Numbers are drawn."),
        mock.patch.dict(sys.modules, {module.__name__: module}),
        mock.patch.object(environment, "loader", loader),
    ):
        yield
