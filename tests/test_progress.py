"""Progress is shown on a terminal, to whoever asked for it."""

import io
import re
import subprocess
import sys
import threading

import pytest
from support.terminals import OnTerminal

from keras_resnet import progress

WORK = """
import logging, sys, time
from keras_resnet import progress
logging.basicConfig()
print("before")
with progress.shown():
    with progress.task("Short", 3) as advance:
        advance(3)
    with progress.task("Training", 2, "epochs") as epochs:
        for epoch in range(2):
            for item in progress.tracked(range(40), f"Epoch {epoch + 1}"):
                time.sleep(0.05)
                if item == 35:
                    print("a line of" + " words" * 30)
                    print("a notice", file=sys.stderr)
            print(f"epoch {epoch + 1}: done")
            epochs(note=f"loss {1 / (epoch + 1):.2f}")
print("after")
"""
LINE = "a line of" + " words" * 30
PRINTED = ["before", LINE, "epoch 1: done", LINE, "epoch 2: done", "after"]


@pytest.fixture(scope="module")
def on_terminal():
    process = OnTerminal(sys.executable, "-c", WORK)
    assert process.wait() == 0
    return process


class TestShown:
    def test_bars_say_how_far_how_fast_and_how_long(self, on_terminal):
        last = [line for line in on_terminal.drawn if "Epoch 1" in line][-1]
        found = re.search(r"(\d+)/40 images +(\d+) images/s +0:00:0(\d) left", last)
        assert found, last
        done, rate, _ = map(int, found.groups())
        assert 30 <= done <= 40
        assert rate <= 20
        assert any(re.search("Training .* 1/2 epochs .* loss 1.00", x) for x in on_terminal.drawn)

    def test_nothing_of_them_is_left_and_no_line_is_torn(self, on_terminal):
        assert on_terminal.left == [
            each for line in PRINTED for each in ([line, "a notice"] if line == LINE else [line])
        ]

    def test_short_work_gets_none(self, on_terminal):
        assert not any("Short" in line for line in on_terminal.drawn)

    def test_without_a_terminal_nothing_is_written(self):
        done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True)
        assert done.stdout.splitlines() == PRINTED
        assert done.stderr.splitlines() == ["a notice"] * 2

    def test_a_pipe_stays_clean(self):
        process = OnTerminal(sys.executable, "-c", WORK, piped=True)
        assert process.wait() == 0
        assert process.output.decode().splitlines() == PRINTED
        assert any("Epoch 1" in line for line in process.drawn)


class TestTask:
    def test_is_silent_by_itself(self, capfd):
        with progress.task("Work", 2) as advance:
            advance()
            advance(1, "note")
        assert [*progress.tracked(iter("ab"), "Work")] == ["a", "b"]
        assert capfd.readouterr() == ("", "")

    def test_counts_what_threads_do(self):
        bars = progress._Bars(None)
        work = progress._Work("Work", None, "images", 5)

        def advance():
            for _ in range(1000):
                work.advance(2, "note")

        threads = [threading.Thread(target=advance) for _ in range(8)]
        bars.begin(work)
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        bars.end(work)
        assert (work.done, work.note) == (5 + 8 * 2000, "note")

    def test_ends_with_an_error(self):
        with pytest.raises(KeyError), progress.shown(io.StringIO()), progress.task("Work"):
            raise KeyError
