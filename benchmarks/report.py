"""Turns measurements into ratios, `RESULTS.md` and a plot for each machine.

Every kind of CPU has a folder in `results/cpus`: `peers.json` is from `benchmarks`, `profile.json`
from `benchmarks.profile`, and `notes.md` says what someone has learned from them. Every kind of GPU
has a file in `results/gpus`, from `benchmarks.gpu`.
"""

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contenders import NETS
from benchmarks.profile import CONVOLUTIONS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Bar:
    """A target: the least ratio of medians, theirs to ours, against some peers."""

    net: str
    work: str
    batch: int
    peers: tuple[str, ...]  # prefixes of their names
    at_least: float
    ours: str = "bfloat16"
    theirs: tuple[str, ...] = ("float32", "bfloat16")


BARS = [
    Bar("ResNeXt-50", "train", 8, ("stock Keras twin",), 40, ours="float32", theirs=("float32",)),
    Bar("ResNeXt-50", "train", 8, ("stock Keras twin",), 70),
    Bar("ResNeXt-50", "train", 8, ("PyTorch",), 1.15),
    Bar("ResNeXt-50", "train", 32, ("PyTorch",), 1.15),
    Bar("ResNeXt-50", "infer", 8, ("PyTorch",), 1.5, ours="float32", theirs=("float32",)),
    Bar("ResNeXt-50", "infer", 8, ("PyTorch",), 1.2),
    Bar("ResNet-50", "train", 32, ("keras.applications",), 1.8),
    Bar("ResNet-50", "train", 32, ("KerasHub",), 1.8),
    Bar("ResNet-50", "train", 32, ("PyTorch",), 1.1),
    Bar("ResNet-50", "infer", 32, ("keras.applications",), 1.6),
    Bar("ResNet-50", "infer", 32, ("PyTorch",), 1.1),
    Bar("ResNet-50", "infer", 1, ("PyTorch",), 1.0),
    # These run our exported model.
    Bar("ResNet-50", "infer", 32, ("ONNX Runtime", "OpenVINO"), 1.0),
    Bar("ResNet-50", "infer", 1, ("ONNX Runtime", "OpenVINO"), 1.0),
    Bar("ResNeXt-50", "infer", 8, ("ONNX Runtime", "OpenVINO"), 1.0),
    Bar("CIFAR ResNet-20", "train_from_files", 128, ("stock Keras twin",), 1.5),
    Bar("CIFAR ResNet-20", "train_from_files", 128, ("PyTorch",), 1.0),
    Bar("ResNet-152", "build", 1, ("KerasHub",), 1.5, ours="float32"),
]
PEAK_AT_MOST = 0.75  # of keras.applications' peak memory, training ResNet-50, batch 32

WORK = {
    "train": "training step, batch {}",
    "infer": "inference, batch {}",
    "train_from_files": "training from JPEG files, batch {}",
    "build": "build",
    "save": "save",
    "load": "load",
}
PASSES = {"train": 3, "infer": 1}  # times the multiply-adds of a forward pass
_ONCE = ("build", "save", "load")  # reported in seconds, the rest in images per second


def ratio(window: dict, ours: str) -> float | None:
    """Return the peer's median time over ours in one window."""
    if ours not in window["ours"]:
        return None
    return statistics.median(window["seconds"]) / statistics.median(window["ours"][ours])


def bars_of(results: dict) -> list[Bar]:
    """List the targets of a machine; where it has no bfloat16, ours runs in float32."""
    found = {}
    for bar in BARS:
        bar = replace(bar, ours=bar.ours if bar.ours in results["rates"] else "float32")
        found.setdefault((bar.net, bar.work, bar.batch, bar.peers, bar.ours), bar)
    return list(found.values())


def best_peer(results: dict, bar: Bar) -> tuple[float, str] | None:
    """Return the lowest ratio among the peers of a target, and that peer."""
    found = [
        (reached, f"{window['contender']}, {window['precision']}")
        for window in results.get("nets", {}).get(bar.net, {}).get("windows", ())
        if (window["work"], window["batch"]) == (bar.work, bar.batch)
        and window["contender"].startswith(bar.peers)
        and window["precision"] in bar.theirs
        and (reached := ratio(window, bar.ours)) is not None
    ]
    return min(found, default=None)


def print_ratios(results: dict) -> None:
    for net, found in results.get("nets", {}).items():
        for window in found["windows"]:
            against = ", ".join(
                f"{ratio(window, ours):.2f} (ours in {ours})" for ours in window["ours"]
            )
            print(
                f"{net}, {found['size']} px, {_name(window)}: "
                f"{window['contender']}, {window['precision']}, time over ours: {against}"
            )


def write_report() -> None:
    """Write `RESULTS.md` from the results of all machines, and their plots."""
    machines = {
        file.parent: json.loads(file.read_text())
        for file in sorted((HERE / "results" / "cpus").glob("*/peers.json"))
    }
    cards = [json.loads(file.read_text()) for file in sorted((HERE / "results" / "gpus").glob("*"))]
    headings = [*map(_model_of, machines.values()), "GPUs"]
    lines = [
        "# How keras_resnet compares",
        "",
        "Written by `python -m benchmarks`, which adds or renews the section of the CPU that it "
        "runs on; `python -m benchmarks.gpu` does that for a GPU. Every peer alternated with "
        "keras_resnet, in separate processes on the same machine: trust the ratios of medians; "
        "absolute figures drift. Ratios differ between kinds of CPU.",
        "",
        *(f"- [{heading}](#{_anchor(heading)})" for heading in headings),
    ]
    for folder, results in machines.items():
        lines += ["", *_machine_section(results, folder)]
        _plot(results, folder / "peers.png")
    lines += ["", *_gpu_section(cards)]
    (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n")


def _model_of(results):
    """The model of a CPU, from the line that describes it."""
    return results["machine"].partition(", ")[0]


def _anchor(heading):
    """What GitHub and MkDocs call a heading in a link."""
    kept = "".join(each for each in heading.lower() if each.isalnum() or each in " -_")
    return kept.replace(" ", "-")


def _machine_section(results: dict, folder: Path) -> list[str]:
    """Return the section of one CPU."""
    rates = results["rates"]
    lines = [
        f"## {_model_of(results)}",
        "",
        f"{results['machine']} The machine's matmul rate, the speed of a large matrix product, is "
        f"{rates['float32'] / 1e9:.0f} G multiply-adds per second in float32"
        + (f" and {rates['bfloat16'] / 1e9:.0f} G in bfloat16." if "bfloat16" in rates else "."),
        "",
        f"![Times of the best peers, relative to ours]({(folder / 'peers.png').relative_to(HERE)})",
        "",
        "### Targets",
        "",
        *_table(
            ["model", "work", "ours", "peers", "best peer", "ratio", "target", ""],
            [row for bar in bars_of(results) for row in _bar_row(results, bar)]
            + list(_memory_rows(results)),
        ),
        "",
        "The ratio is the peer's time over ours. Of several peers or precisions, the best one "
        "counts. For memory, the ratio is our peak over theirs.",
        *_profile_section(folder),
    ]
    for net, found in results["nets"].items():
        lines += ["", f"### {net}, {found['size']} px", ""]
        lines += _net_table(net, found, rates)
        if starts := _starts_table(found["starts"]):
            lines += ["", *starts]
    return lines


def _gpu_section(cards: list[dict]) -> list[str]:
    """Return the section of all GPUs: images per second, memory, and use of the matrix units."""
    lines = ["## GPUs", ""]
    if not cards:
        return [*lines, "None has been measured yet: `python -m benchmarks.gpu` does, in minutes."]
    lines += [
        "The fraction is of the rate of a large matrix product in bfloat16 on the same card, in "
        "multiply-adds, counting three forward passes per training step. The first call traces and "
        "compiles.",
    ]
    for card in cards:
        lines += [
            "",
            f"### {card['device']}",
            "",
            f"{card['software']} Matrix product in bfloat16: "
            f"{2 * card['rate'] / 1e12:,.0f} TFLOP/s.",
            "",
            *_table(
                [
                    *("model", "work", "precision", "library", "images/s"),
                    *("of bfloat16 matmul rate", "peak memory", "first call"),
                ],
                [_gpu_row(each, card["rate"]) for each in card["measured"]],
            ),
        ]
    return lines


def _gpu_row(each, rate):
    """Return the table row of one measurement on a GPU."""
    if "error" in each:
        return [*_what(each), each["error"], "", "", ""]
    per_second = each["batch"] / statistics.median(each["seconds"])
    used = per_second * PASSES[each["work"]] * NETS[each["net"]].multiply_adds
    scale = (each["size"] / NETS[each["net"]].size) ** 2
    return [
        *_what(each),
        f"{per_second:,.0f}",
        f"{used * scale / rate:.0%}",
        f"{each['peak_mebibytes']:,.0f} MiB",
        f"{each['first']:.0f} s",
    ]


def _what(each):
    """Return the first cells of a row on a GPU: what was measured."""
    return [each["net"], _name(each), each["precision"], each["library"]]


def _bar_row(results, bar):
    """Yield the table row of a target, if it was measured."""
    best = best_peer(results, bar)
    if best is not None:
        reached, peer = best
        verdict = "" if reached >= bar.at_least else _miss(results, bar, reached)
        yield [
            bar.net,
            WORK[bar.work].format(bar.batch),
            bar.ours,
            " or ".join(bar.peers),
            peer,
            f"**{reached:.2f}**",
            f"{bar.at_least:g}",
            verdict,
        ]


def _miss(results, bar, reached):
    """Describe a miss: by how much, and the fraction of the matmul rate reached and needed."""
    missed = f"missed by {1 - reached / bar.at_least:.0%}"
    passes = PASSES.get(bar.work)
    if not passes:
        return missed
    windows = results["nets"][bar.net]["windows"]
    seconds = statistics.median(
        second
        for window in windows
        if (window["work"], window["batch"]) == (bar.work, bar.batch)
        for second in window["ours"].get(bar.ours, ())
    )
    multiply_adds = passes * bar.batch * NETS[bar.net].multiply_adds
    used = multiply_adds / seconds / results["rates"][bar.ours]
    needed = used * bar.at_least / reached
    return f"{missed}: ours reaches {used:.0%} of the matmul rate, the target is {needed:.0%}"


def _profile_section(folder: Path) -> list[str]:
    """Return the section on where our steps spend their time, and what is known about it."""
    notes, profile = (folder / name for name in ("notes.md", "profile.json"))
    known = ["", *notes.read_text().splitlines()] if notes.exists() else []
    if not profile.exists():
        return known
    found = json.loads(profile.read_text())
    profiles, rate = found["profiles"], found["rates"]["bfloat16"]
    families = sorted(
        dict.fromkeys(family for each in profiles for family in each["families"]),
        key=lambda family: -max(each["families"].get(family, 0) for each in profiles),
    )

    def cell(each, family):
        seconds = each["families"].get(family)
        if seconds is None or seconds < 1e-3:
            return ""
        text = f"{1e3 * seconds:.0f} ms"
        if family in CONVOLUTIONS:
            best = each["batch"] * NETS[each["net"]].multiply_adds / rate
            text += f" ({best / seconds:.0%})"
        return text

    header = ["", *(f"{e['net']}, {WORK[e['work']].format(e['batch'])}" for e in profiles)]
    rows = [[family, *(cell(each, family) for each in profiles)] for family in families]
    whole = ["whole step", *(f"{1e3 * each['seconds']:.0f} ms" for each in profiles)]
    return [
        "",
        "### Where our time goes",
        "",
        "From `python -m benchmarks.profile`: bfloat16, one operation at a time. In parentheses, "
        "the fraction of the matmul rate that convolutions reach.",
        "",
        *_table(header, [*rows, whole]),
        *known,
    ]


def _memory_rows(results) -> Iterator[list[str]]:
    """Yield the table rows that compare peak memory."""
    peaks = {
        (start["contender"], start["precision"]): start["peak_mebibytes"].get("train 32")
        for start in results["nets"].get("ResNet-50", {}).get("starts", ())
    }
    best = "bfloat16" if "bfloat16" in results["rates"] else "float32"
    ours = peaks.get(("keras_resnet", best))
    for precision in ("float32", "bfloat16"):
        theirs = peaks.get(("keras.applications", precision))
        if ours and theirs:
            fraction = ours / theirs
            excess = fraction / PEAK_AT_MOST - 1
            verdict = f"missed by {excess:.0%}" if excess > 0 else ""
            yield [
                "ResNet-50",
                "peak memory, training step, batch 32",
                f"{best}, {ours:,.0f} MiB",
                "keras.applications",
                f"{precision}, {theirs:,.0f} MiB",
                f"**{fraction:.2f}**",
                f"at most {PEAK_AT_MOST}",
                verdict,
            ]


def _net_table(net, found, rates):
    """Return a table with one row per piece of work and contender."""
    rows = []
    for work, batch in dict.fromkeys((each["work"], each["batch"]) for each in found["windows"]):
        windows = [w for w in found["windows"] if (w["work"], w["batch"]) == (work, batch)]
        multiply_adds = NETS[net].multiply_adds * (found["size"] / NETS[net].size) ** 2
        cost = PASSES.get(work, 0) * multiply_adds

        for precision in ("float32", "bfloat16"):
            window = next((w for w in windows if precision in w["ours"]), None)
            if window:
                # Ours ran in every window: use them all.
                seconds = [s for w in windows for s in w["ours"].get(precision, ())]
                facts = _facts(work, batch, seconds, cost and cost / rates[precision])
                rows.append([_name(window), "keras_resnet", precision, *facts, "", "", ""])
        for window in windows:
            against = [ratio(window, ours) for ours in (window["precision"], "bfloat16")]
            precision = window["precision"]
            facts = _facts(work, batch, window["seconds"], cost and cost / rates[precision])
            rows.append(
                [
                    _name(window),
                    window["contender"],
                    precision,
                    *facts,
                    f"{window['first']:.1f} s",
                    *("" if each is None else f"{each:.2f}" for each in against),
                ]
            )
    header = ["work", "contender", "precision", "median", "spread", "of matmul rate", "first call"]
    return _table([*header, "time over ours, same precision", "time over ours, bfloat16"], rows)


def _facts(work, batch, seconds, at_best):
    """Return median, spread, and fraction of the matmul rate; `at_best` is seconds per image."""
    median = statistics.median(seconds)
    speed = f"{median:.2f} s" if work in _ONCE else f"{batch / median:,.1f} images/s"
    return speed, _spread(seconds), f"{at_best * batch / median:.0%}" if at_best else ""


def _starts_table(starts):
    """Return a table of the one-time costs of each process."""
    rows = [
        [
            start["contender"],
            start["precision"],
            f"{start['imports']:.1f} s",
            f"{start['build']:.1f} s",
            "" if start["first_step"] is None else f"{start['first_step']:.1f} s",
            ""
            if start["first_step"] is None
            else f"{start['imports'] + start['build'] + start['first_step']:.1f} s",
            *(
                f"{start['peak_mebibytes'][key]:,.0f} MiB" if key in start["peak_mebibytes"] else ""
                for key in ("train 8", "train 32", "train 128")
            ),
        ]
        for start in starts
        if start["first_step"] is not None
    ]
    if not rows:
        return []
    header = ["contender", "precision", "import", "first build", "first training step"]
    peaks = ["peak, batch 8", "peak, batch 32", "peak, batch 128"]
    return _table([*header, "import to first step", *peaks], rows)


def _table(header, rows):
    """Format a Markdown table, without its empty columns."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    pick = [[row[i] for i in kept] for row in [header, *rows]]
    return [
        "| " + " | ".join(pick[0]) + " |",
        "| " + " | ".join("---" for _ in kept) + " |",
        *("| " + " | ".join(row) + " |" for row in pick[1:]),
    ]


def _name(window):
    """Return the description of the work in a window."""
    return WORK[window["work"]].format(window["batch"])


def _spread(seconds):
    """Format half the interquartile range as a percentage of the median."""
    if len(seconds) < 4:
        return ""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"± {(high - low) / 2 / middle:.0%}"


_LONGEST = 4.0  # bars that are longer end in an arrow, so that the others can be told apart
_AHEAD, _BEHIND, _TARGET = "#4477aa", "#ee7733", "#222222"


def _plot(results: dict, path: Path) -> None:
    """Plot the ratios to the best peers from 1 on: to the right ahead, to the left behind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [(bar, *best) for bar in bars_of(results) if (best := best_peer(results, bar))]
    figure, axes = pyplot.subplots(figsize=(10, 0.52 * len(rows) + 1.4), layout="constrained")
    for row, (bar, reached, _) in enumerate(rows):
        end = min(max(reached, 1 / _LONGEST), _LONGEST)
        colour = _AHEAD if reached >= 1 else _BEHIND
        axes.barh(row, end - 1, left=1, height=0.62, color=colour)
        if end != reached:
            axes.plot(
                end, row, ">" if reached > 1 else "<", color=colour, markersize=14, clip_on=False
            )
        if bar.at_least <= _LONGEST:
            axes.plot([bar.at_least] * 2, [row - 0.42, row + 0.42], color=_TARGET, linewidth=2)
        axes.annotate(
            f"{reached:.2f}" if reached < 10 else f"{reached:.0f}",
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(16, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=colour,
        )
    labels = [
        f"{bar.net}, {WORK[bar.work].format(bar.batch)}, {bar.ours}\nagainst {peer}"
        for bar, _, peer in rows
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log", base=2)
    axes.set_xlim(1 / _LONGEST, _LONGEST)
    ticks = {0.25: "1/4", 0.5: "1/2", 1: "1", 2: "2", _LONGEST: f"{_LONGEST:g}"}
    axes.set_xticks([*ticks], [*ticks.values()], fontsize=10)
    axes.axvline(1, color="black", linewidth=1)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel(
        "time of the best peer over ours: to the right ours is faster, to the left theirs; "
        "black marks are targets",
        fontsize=10,
        loc="right",
    )
    axes.set_title(_model_of(results), fontsize=11)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
