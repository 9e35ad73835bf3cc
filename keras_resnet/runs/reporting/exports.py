"""The export of a run: whether it was compared with the model, and how fast it is."""

from typing import Any

from markupsafe import Markup

from keras_resnet.pages import Section, number, parts
from keras_resnet.runs.reporting.facts import Run


def exported(run: Run) -> Section | None:
    """The SavedModel of a run."""
    if not run.card:
        return Section("Export", [parts.note("The run's SavedModel was not found.")])
    card, found = run.card, run.card.get("verification") or {}
    rows: list[tuple[str, Any]] = [
        ("SavedModel", card.get("path")),
        ("Precision", card.get("precision")),
        ("Parameters", card.get("parameters")),
        ("Image size", _size(card.get("image_size"))),
    ]
    if found:
        images, noise = found.get("images"), " of random noise" if found.get("made_up") else ""
        rows.append(("Compared with the model", f"on {images} images{noise}"))
        rows += [
            (label, form(found[name]))
            for name, label, form in _VERIFIED
            if isinstance(found.get(name), int | float)
        ]
        rows += [
            (f"Time for {count} image{'s' if int(count) > 1 else ''}", f"{number(float(time))} ms")
            for count, time in (found.get("milliseconds") or {}).items()
        ]
        if run.processor:
            rows.append(("Measured on", run.processor))
    else:
        rows.append(("Compared with the model", "no"))
    more = parts.text(
        "These times are medians of a few calls right after the export;",
        Markup("<code>keras-resnet bench</code>"),
        "measures for longer, and other batch sizes and formats.",
        quiet=True,
    )
    return Section("Export", [parts.facts(rows), *([more] if found else [])])


_VERIFIED = (
    ("agreement", "Same prediction", "{:.2%}".format),
    ("largest_difference", "Largest difference", "{:.2g}".format),
    ("box_difference", "Largest difference in a box, in pixels", "{:.2g}".format),
    ("mebibytes", "Size on disk, in MiB", number),
)


def _size(size):
    return " x ".join(map(str, size)) if isinstance(size, list) else size
