"""The settings of a run, and the versions and machine that it used."""

import json
from typing import Any

from keras_resnet.pages import Section, parts
from keras_resnet.runs.reporting.facts import Run


def asked(run: Run) -> Section | None:
    """The settings, and the command that repeats the run."""
    if not run.asked:
        return None
    settings = run.asked.get("settings") or {}
    plan = settings.get("training")
    given: list[tuple[str, Any]] = [
        (_named(name), _written(value)) for name, value in settings.items() if name != "training"
    ]
    found = []
    if command := run.asked.get("command"):
        found += [parts.text("To repeat this run:"), parts.command(command)]
    stages = plan if isinstance(plan, list) else [plan] if plan else []
    found += [
        parts.details("All settings, including defaults", parts.facts(given)),
        *(_stage(stage) for stage in stages),
    ]
    return Section("Settings", found)


def _stage(stage):
    """The recipe of a training, or of one of its stages."""
    recipe = stage.get("recipe", stage)
    title = f"Stage: {stage['back_to']}" if "back_to" in stage else "Recipe"
    own = {name: value for name, value in stage.items() if name not in ("recipe", "back_to")}
    facts = {**recipe, **own} if "recipe" in stage else recipe
    return parts.details(
        title, parts.facts([(_named(name), _written(value)) for name, value in facts.items()])
    )


def versions(run: Run) -> Section | None:
    """The versions and machine of the run, and how long it took."""
    if not run.asked:
        return None
    rows: list[tuple[str, Any]] = [
        (name, version) for name, version in (run.asked.get("versions") or {}).items()
    ]
    rows += [
        ("Machine", run.processor),
        ("Started", run.asked.get("started")),
        ("Total time", _duration(run.asked.get("seconds"))),
        ("Time in training steps", _duration(run.metrics.get("seconds"))),
    ]
    if rate := run.metrics.get("images_per_second"):
        rows.append(
            ("Training images per second", f"{rate:,.3g}" if rate < 1000 else f"{rate:,.0f}")
        )
    return Section("Versions and machine", [parts.facts(rows)])


def _named(name):
    return name.replace("_", " ")


def _written(value):
    """A setting as text; None stays None."""
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _duration(seconds):
    if seconds is None:
        return None
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
