"""Measurement windows in which a peer alternates with keras_resnet, in separate processes."""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contenders import CONTENDERS, EVERYONE, installed
from benchmarks.machine import precisions as precisions_here
from benchmarks.machine import write_jpeg_folder
from benchmarks.worker import Process

ROUNDS = 5
TURN, WINDOW = 0.5, 30.0  # seconds: minimum per turn, and when to stop starting new rounds
TOO_LONG = 100.0  # seconds; skip steps expected to take longer
IMAGES = {"ResNet-18": 256, "CIFAR ResNet-20": 2560}  # JPEG files to train from
MODES_OF_PYTORCH = [name for name in CONTENDERS if name.startswith(("PyTorch ", "torchvision"))]


def peers_of(net: str) -> list[tuple[str, str]]:
    """List all other installed contenders that have this model, with each of their precisions."""
    return [
        (name, precision)
        for name, (kind, precisions, modules) in CONTENDERS.items()
        if name != "keras_resnet" and net in kind.nets and installed(*modules)
        for precision in precisions
        if precision in precisions_here()
    ]


def can(name: str, work: str, precision: str) -> bool:
    """Whether to measure a contender on this work, skipping repeats of the same measurement."""
    if work in ("build", "save", "load") and (precision != "float32" or name in MODES_OF_PYTORCH):
        return False
    return hasattr(EVERYONE[name][0], work)


class Entrant:
    """A contender's process, with the time of each first call and the peak memory after it."""

    def __init__(self, name, net, precision, size, folder):
        self.name, self.precision, self._net, self._folder = name, precision, net, folder
        self.process = Process(name, net, precision, size)
        self.first, self._peaks = {}, {}

    def warm_up(self, work, batch):
        if (work, batch) not in self.first and can(self.name, work, self.precision):
            answer = self.process.do(work, **self._options(work, batch))
            self.first[work, batch] = answer["seconds"][0]
            self._peaks[work, batch] = answer["peak_mebibytes"]

    def turn(self, work, batch):
        seconds = self.process.do(work, seconds=TURN, **self._options(work, batch))["seconds"]
        images = IMAGES[self._net] if work == "train_from_files" else batch
        return [second * batch / images for second in seconds]

    def _options(self, work, batch):
        """Return the options of a command to the process."""
        return (
            dict(batch=batch, folder=self._folder)
            if work == "train_from_files"
            else dict(batch=batch)
        )

    def start(self):
        """Return one-time costs: seconds for start-up and the first step, and peak memory."""
        trained = [key for key in self._peaks if key[0] == "train"]
        first = next(iter(trained), None)
        return {
            "contender": self.name,
            "precision": self.precision,
            **self.process.startup,
            "first_step": self.first.get(first),
            "peak_mebibytes": {
                f"train {batch}": self._peaks["train", batch] for _, batch in trained
            },
        }


def measure(
    net: str,
    size: int,
    work: list[tuple[str, int]],
    peers: list[tuple[str, str]],
    rounds: int = ROUNDS,
) -> dict:
    """Measure all windows of one model, and the start-up cost of each contender."""
    windows, starts = [], []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if any(each == "train_from_files" for each, _ in work):
            write_jpeg_folder(Path(folder), IMAGES[net], size)

        def enter(name, precision):
            entrant = Entrant(name, net, precision, size, folder)
            stack.enter_context(entrant.process)
            for each in work:
                entrant.warm_up(*each)
            starts.append(entrant.start())
            return entrant

        ours = {precision: enter("keras_resnet", precision) for precision in precisions_here()}
        for name, precision in peers:
            print(f"{net}: {name}, {precision}", file=sys.stderr, flush=True)
            try:
                entrant = Entrant(name, net, precision, size, folder)
            except RuntimeError as error:
                print(f"skipped: {error}", file=sys.stderr)
                continue
            with entrant.process:
                windows += list(_windows(entrant, ours, work, rounds))
            starts.append(entrant.start())
    return {"size": size, "windows": windows, "starts": starts}


def _windows(peer, ours, work, rounds):
    """Alternate one peer with ours, in its precision and in bfloat16, for each piece of work."""
    a_step = {}
    for each, batch in work:
        if not can(peer.name, each, peer.precision) or a_step.get(each, 0) * batch > TOO_LONG:
            continue
        try:
            peer.warm_up(each, batch)
        except RuntimeError as error:
            print(f"{each} failed with batch size {batch}: {error}", file=sys.stderr)
            return
        entrants = {"peer": peer, peer.precision: ours[peer.precision]}
        if "bfloat16" in ours and can("keras_resnet", each, "bfloat16"):
            entrants["bfloat16"] = ours["bfloat16"]
        seconds = {key: [] for key in entrants}
        start = time.perf_counter()
        for _ in range(rounds):
            for key, entrant in entrants.items():
                seconds[key] += entrant.turn(each, batch)
            if time.perf_counter() - start > WINDOW:
                break
        a_step[each] = min(seconds["peer"]) / batch
        yield {
            "contender": peer.name,
            "precision": peer.precision,
            "work": each,
            "batch": batch,
            "seconds": seconds.pop("peer"),
            "ours": seconds,
            "first": peer.first[each, batch],
        }
