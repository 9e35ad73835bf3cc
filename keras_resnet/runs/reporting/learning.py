"""How the training of a run went."""

from keras_resnet import pages
from keras_resnet.pages import Section, parts
from keras_resnet.runs.reporting.facts import Run


def curves(run: Run) -> Section | None:
    """Loss and metrics over the epochs, with a line where each stage begins."""
    history = {name: column for name, column in run.history.items() if name != "stage"}
    metrics = [name for name in history if not name.startswith("val_")]
    if not metrics:
        return None
    epochs = len(history[metrics[0]])
    stages, best = run.history.get("stage", ()), run.metrics.get("best_epoch")
    drawn = []
    for metric in metrics:
        with pages.figure() as (figure, axis):
            _draw(axis, history, metric, stages, best)
        label = f"{metric} over the epochs"
        drawn.append(pages.svg(figure, label, f"curve-{len(drawn)}"))
    caption = f"{epochs} {'epoch' if epochs == 1 else 'epochs'}."
    if best and best <= epochs:
        losses = history.get("val_loss")
        lowest = losses and losses[best - 1] <= min(losses)
        why = ", in which validation loss was lowest" if lowest else ""
        caption += f" The model has the weights of epoch {best}{why}."
    if stages:
        caption += f" Stages: {_stages(stages)}."
    rows = [
        [epoch, *([stages[epoch - 1]] if stages else []), *row]
        for epoch, row in enumerate(zip(*history.values(), strict=True), start=1)
    ]
    columns = ["epoch", *(["stage"] if stages else []), *history]
    numbers = parts.details("The numbers", parts.table(columns, rows))
    return Section("Training", [parts.row(*drawn), parts.text(caption, quiet=True), numbers])


def _draw(axis, history, metric, stages, best):
    """Draw a metric of training and validation images."""
    epochs = range(1, len(history[metric]) + 1)
    style = {"marker": "."} if len(epochs) < 20 else {}  # a single epoch is a point
    axis.plot(epochs, history[metric], label="training", color=pages.COLOURS[0], **style)
    if f"val_{metric}" in history:
        values = history[f"val_{metric}"]
        axis.plot(epochs, values, label="validation", color=pages.COLOURS[1], **style)
        if best and best <= len(values):
            axis.plot(best, values[best - 1], "o", color=pages.COLOURS[1], fillstyle="none")
    for epoch in epochs[1:]:
        if stages and stages[epoch - 1] != stages[epoch - 2]:
            axis.axvline(epoch - 0.5, color="#8a8a8a", linewidth=0.8, linestyle=":")
    axis.set_xlabel("epoch")
    axis.set_ylabel(metric.replace("_", " "))
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if len(epochs) < 20:
        axis.set_xlim(0.5, len(epochs) + 0.5)
    axis.legend()


def _stages(stages):
    """The stages and their epochs, in words."""
    counts = {}
    for stage in stages:
        counts[stage] = counts.get(stage, 0) + 1
    return ", ".join(f"{stage} ({count})" for stage, count in counts.items())
