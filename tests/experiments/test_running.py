"""Trials that are kept, folders that are for one thing, and work that is shared."""

import dataclasses
import json
import logging
import shlex
import signal

import drawing
import numpy as np
import pytest
from commands import refused, run
from pictures import write_images
from processes import Run, wait_for

from keras_resnet import data, experiments, training
from keras_resnet.experiments import running

TINY = {"depths": (8, 14), "images": 64, "test_images": 32, "epochs": 1, "seeds": 1}


@pytest.fixture(autouse=True)
def there():
    with drawing.there():
        yield


def works_as(monkeypatch, work):
    """Let trials do something else, given what they would do."""
    former = drawing._drawn
    monkeypatch.setattr(drawing, "_drawn", lambda *given: work(partial_of(former, given), *given))


def partial_of(function, given):
    return lambda: function(*given)


def pages_of(output):
    return {
        file.name: file.read_bytes() for file in output.iterdir() if file.name.startswith("report")
    }


class TestResuming:
    def test_a_trial_that_is_done_is_not_done_again(self, tmp_path):
        first = experiments.run("drawing", tmp_path)
        written = pages_of(tmp_path)
        assert drawing.drawn(tmp_path) == ["1-0", "2-0", "1-1", "2-1"]
        assert experiments.run("drawing", tmp_path) == first
        assert len(drawing.drawn(tmp_path)) == 4
        assert pages_of(tmp_path) == written
        assert len(written) == 4
        assert not (tmp_path / "trials").exists()

    def test_what_failed_is_done_by_the_next_call(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:

            def fails(usual, settings, width, seed, context):
                if (width, seed) == (1, 1):
                    raise ValueError("no more numbers")
                return usual()

            works_as(patched, fails)
            with pytest.raises(ValueError, match="no more numbers"):
                experiments.run("drawing", tmp_path)
        assert not pages_of(tmp_path)
        assert experiments.run("drawing", tmp_path).missing == ()
        assert drawing.drawn(tmp_path) == ["1-0", "2-0", "1-1", "2-1"]

    def test_more_seeds_are_more_trials(self, tmp_path):
        one = experiments.run("drawing", tmp_path, seeds=1)
        three = experiments.run("drawing", tmp_path, seeds=3)
        assert len(drawing.drawn(tmp_path)) == 6
        assert three.results.items() >= one.results.items()
        assert experiments.run("drawing", tmp_path, seeds=1) == one
        assert experiments.rebuild(tmp_path) == one

    def test_ctrl_c_between_trainings_is_a_line(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:

            def interrupts(usual, settings, width, seed, context):
                if seed == 1:
                    raise KeyboardInterrupt
                return usual()

            works_as(patched, interrupts)
            with pytest.raises(training.Interrupted, match=r"2 of 4 trials are done\.") as stopped:
                experiments.run("drawing", tmp_path)
            assert stopped.value.code == 130
        experiments.run("drawing", tmp_path)
        assert drawing.drawn(tmp_path) == ["1-0", "2-0", "1-1", "2-1"]

    def test_says_how_far_it_is(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(running, "_duration", lambda seconds: "3 min")
        with caplog.at_level(logging.INFO, "keras_resnet"):
            experiments.run("drawing", tmp_path)
            experiments.run("drawing", tmp_path)
        first, one, two, _, four, again = caplog.messages
        assert first == "drawing: 4 trials, 0 done."
        last = json.loads((tmp_path / "results" / "1-0.json").read_text())["numbers"][-1]
        assert one == f"1 of 4, 1-0: numbers {last:.3g}; 3 min"
        assert two.endswith("; 3 min; about 3 min left")
        assert four.startswith("4 of 4, 2-1: ")
        assert four.endswith("; 3 min")
        assert again == "drawing: 4 trials, 4 done."

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.5, "0.5 s"), (89, "89 s"), (90, "1.5 min"), (720, "12 min"), (360_000, "100 h")],
    )
    def test_says_how_long(self, seconds, text):
        assert running._duration(seconds) == text


class TestSharing:
    def test_two_processes_share_the_trials(self, tmp_path, processes):
        begun, go = processes.Event(), processes.Event()
        slow = processes.Process(target=_slowly, args=(tmp_path, begun, go))
        slow.start()
        assert begun.wait(60)
        record = experiments.run("drawing", tmp_path)
        assert record.missing == ("1-0",)
        assert record.values == {}
        assert not pages_of(tmp_path)
        go.set()
        slow.join(60)
        assert slow.exitcode == 0
        assert sorted(drawing.drawn(tmp_path)) == ["1-0", "1-1", "2-0", "2-1"]
        assert len(pages_of(tmp_path)) == 4
        assert experiments.run("drawing", tmp_path).missing == ()

    def test_other_settings_at_the_same_time_are_noticed(self, tmp_path, monkeypatch):
        def other_begins(usual, settings, width, seed, context):
            file = drawing.output_of(context) / "experiment.json"
            file.write_text(file.read_text().replace('"count": 5', '"count": 6'))
            return usual()

        works_as(monkeypatch, other_begins)
        with pytest.raises(ValueError, match="count was 6, is 5"):
            experiments.run("drawing", tmp_path)
        assert not (tmp_path / "results").exists()


def _slowly(output, begun, go):
    """Do the experiment in another process, the first trial when told to."""
    usual = drawing._drawn

    def slow(settings, width, seed, context):
        if (width, seed) == (1, 0):
            begun.set()
            assert go.wait(60)
        return usual(settings, width, seed, context)

    drawing._drawn = slow
    with drawing.there():
        experiments.run("drawing", output)


class TestFolders:
    def test_of_other_settings(self, tmp_path):
        experiments.run("drawing", tmp_path)
        with pytest.raises(ValueError, match=r"count was 5, is 6; widths was \[1.0, 2.0\], is \[3"):
            experiments.run("drawing", tmp_path, count=6, widths=[3])
        assert len(drawing.drawn(tmp_path)) == 4

    def test_of_another_experiment(self, tmp_path):
        experiments.run("drawing", tmp_path)
        with pytest.raises(ValueError, match=r"holds the experiment 'drawing': choose another"):
            experiments.run("degradation", tmp_path, data.load("digits"))

    def test_within_that_of_an_experiment(self, tmp_path):
        experiments.run("drawing", tmp_path)
        with pytest.raises(ValueError, match="which holds an experiment: choose a folder beside"):
            experiments.run("drawing", tmp_path / "trials" / "more")
        assert not (tmp_path / "trials").exists()

    def test_of_other_images(self, tmp_path):
        digits = data.load("digits")
        fewer = dataclasses.replace(digits, train=digits.train.take(np.arange(300)))
        settings = dict(TINY, images=None, depths=(8, 14))
        _begin(tmp_path, digits, **settings)
        with pytest.raises(
            ValueError, match="data was 'digits', is 'digits', or its images differ"
        ):
            experiments.run("degradation", tmp_path, fewer, **settings)

    def test_settings_that_an_earlier_version_did_not_have(self, tmp_path):
        experiments.run("drawing", tmp_path)
        file = tmp_path / "experiment.json"
        recorded = json.loads(file.read_text())
        del recorded["settings"]["count"]
        file.write_text(json.dumps(recorded))
        assert experiments.run("drawing", tmp_path).settings["count"] == 5
        file.write_text(json.dumps(recorded))
        with pytest.raises(ValueError, match="count was 5, is 6"):
            experiments.run("drawing", tmp_path, count=6)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "{}", '{"numbers": [1]}', '{"seconds": "1", "machine": "a"}']
    )
    def test_with_a_damaged_result(self, tmp_path, text):
        experiments.run("drawing", tmp_path)
        file = tmp_path / "results" / "1-0.json"
        file.write_text(text)
        with pytest.raises(ValueError, match=r"1-0.json' is damaged: remove it"):
            experiments.run("drawing", tmp_path)
        file.unlink()
        experiments.run("drawing", tmp_path)
        assert drawing.drawn(tmp_path)[-1] == "1-0"

    @pytest.mark.parametrize("text", ["{", '{"experiment": "drawing", "settings": 5}'])
    def test_with_damaged_settings(self, tmp_path, text):
        experiments.run("drawing", tmp_path)
        (tmp_path / "experiment.json").write_text(text)
        for act in (lambda: experiments.run("drawing", tmp_path),
                    lambda: experiments.rebuild(tmp_path)):  # fmt: skip
            with pytest.raises(ValueError, match=r"experiment.json' is damaged"):
                act()

    def test_without_an_experiment_have_no_page(self, tmp_path):
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(ValueError, match="holds no experiment"):
                experiments.rebuild(folder)
        assert not [*tmp_path.iterdir()]

    def test_pages_are_made_again_of_the_results_alone(self, tmp_path):
        record = experiments.run("drawing", tmp_path, count=7, widths=(3.0, 4.0))
        written = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
        for name in written.keys() - {"experiment.json", "drawn.txt"}:
            (tmp_path / name).unlink()
        assert experiments.rebuild(tmp_path) == record
        assert written == {
            file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()
        }

    def test_incomplete_ones_have_no_page(self, tmp_path):
        experiments.run("drawing", tmp_path)
        (tmp_path / "results" / "1-0.json").unlink()
        (tmp_path / "report.md").unlink()
        assert experiments.rebuild(tmp_path).missing == ("1-0",)
        assert not (tmp_path / "report.md").exists()


class TestSettings:
    def test_that_are_not_known(self, tmp_path):
        with pytest.raises(ValueError, match=r"drawing: setting 'cuont' .* mean count\?"):
            experiments.run("drawing", tmp_path / "new", cuont=3)
        with pytest.raises(ValueError, match=r"experiment 'drawings' .* mean drawing\?"):
            experiments.run("drawings", tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_lists_are_tuples(self, tmp_path):
        settings = drawing.experiment().chosen({"widths": [[1, 2], [3, 4]]})
        assert settings.widths == ((1, 2), (3, 4))

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ([], []),
            (["--seeds", "3"], ["--seeds", "3"]),
            (["--set", "word=two words"], ["--set", "word=two words"]),
            (["--full"], ["--full"]),
            (["--full", "--set", "word=a"], ["--full", "--set", "word=a"]),
            (["--full", "--set", "count=5", "--set", "widths=[4.0]"],
             ["--set", "widths=[4.0]"]),  # which says less
        ],
        ids=str,
    )  # fmt: skip
    def test_the_page_says_what_repeats_it(self, tmp_path, given, words):
        output = tmp_path / "found"
        result = run("experiment", "drawing", *given, "--output", output, "--json")
        (command,) = [
            line
            for line in (output / "report.md").read_text().splitlines()
            if line.startswith("keras-resnet ")
        ]
        said = shlex.split(command)
        assert said == ["keras-resnet", "experiment", "drawing", *words, "--output", "OUTPUT"]
        repeated = [str(tmp_path / "again") if each == "OUTPUT" else each for each in said[1:]]
        again = run(*repeated, "--json")
        assert json.loads(again.stdout)["settings"] == json.loads(result.stdout)["settings"]


class TestCommand:
    def test_prints_one_object(self, tmp_path):
        result = run("experiment", "drawing", "--output", tmp_path, "--json")
        found = json.loads(result.stdout)
        assert result.stdout.count("\n") == 1
        record = experiments.rebuild(tmp_path)
        assert found["mean"] == record.values["mean"]
        assert found["experiment"] == "drawing"
        assert found["missing"] == []
        assert result.stderr.splitlines()[0] == "drawing: 4 trials, 0 done."

    def test_prints_what_was_found(self, tmp_path):
        result = run("experiment", "drawing", "--output", tmp_path)
        lines = result.stdout.splitlines()
        assert lines[0] == "drawing: 4 trials, 0 done."
        assert f"mean: {experiments.rebuild(tmp_path).values['mean']:.4g}" in lines
        assert "report.html" in lines[-1]
        assert result.stderr == ""

    def test_without_a_name_lists_the_experiments(self):
        result = run("experiment")
        assert result.exit_code == 0
        for name, claim in experiments.EXPERIMENTS.items():
            assert any(
                line.split() == [name, *claim.split()] for line in result.stdout.splitlines()
            )
        found = json.loads(run("experiment", "--json").stdout)
        assert found == {"experiments": experiments.EXPERIMENTS}

    def test_help_lists_those_that_there_are(self):
        text = run("experiment", "--help").stdout
        assert set(experiments.EXPERIMENTS) - {"drawing"} <= set(text.split())

    def test_of_another_name(self, tmp_path):
        result = run("experiment", "degradatoin", "--output", tmp_path)
        assert result.exit_code == 2
        *listed, error = result.stderr.splitlines()
        assert len(listed) == len(experiments.EXPERIMENTS)
        assert error.startswith("Error: experiment 'degradatoin' is not known. Did you mean degr")

    def test_data_that_nobody_needs(self, tmp_path):
        result = run("experiment", "drawing", "--data", "none/such", "--output", tmp_path)
        assert result.exit_code == 0
        assert result.stderr == "drawing needs no images: the data are not used.\n"

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ("degradation --data digits", "Missing option '--output'"),
            ("degradation --output {}", "degradation needs images: give data"),
            ("degradation --data digits --output {} --set depths=[9]", "depth=9 must be 6n + 2"),
            ("degradation --data digits --output {} --set depths=8", "depths=8 must be"),
            ("degradation --data digits --output {} --set images=9999",
             "images=9999: source 'digits' has 1222"),
            ("degradation --data digits --output {} --set images=9 --set test_images=400",
             "test_images=400: source 'digits' has 359"),
            ("degradation --data digits --output {} --set epoch=2", "Did you mean epochs?"),
            ("drawing --output {} --epochs 3", "setting 'epochs' is not known"),
            ("drawing --output {} --set seeds=0", "seeds=0 must be a whole number"),
        ],
    )  # fmt: skip
    def test_mistakes_are_a_line(self, tmp_path, arguments, reason):
        output = tmp_path / "new"
        line = refused(run("experiment", *arguments.format(output).split()))
        assert reason in line
        assert not output.exists()

    def test_seeds_of_none(self, tmp_path):
        result = run("experiment", "drawing", "--seeds", 0, "--output", tmp_path / "new")
        assert result.exit_code == 2
        assert "'--seeds': 0 is not in the range x>=1" in result.stderr

    def test_into_a_file(self, tmp_path):
        file = tmp_path / "file"
        file.touch()
        result = run("experiment", "drawing", "--output", file)
        assert result.exit_code == 2
        assert f"'{file}' is a file" in result.stderr

    def test_images_of_one_class(self, tmp_path):
        write_images(tmp_path / "data" / "train" / "cat", 6)
        write_images(tmp_path / "data" / "test" / "cat", 6, start=6)
        given = ["--data", tmp_path / "data", "--output", tmp_path / "new"]
        line = refused(run("experiment", "degradation", *given))
        assert "class" in line
        assert not (tmp_path / "new").exists()


def _begin(output, source, **settings):
    """Let a folder be for some images, with nothing done yet."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(running, "_work", lambda *_: None)
        experiments.run("degradation", output, source, **settings)


@pytest.mark.slow
class TestTrainings:
    def test_an_interrupted_one_continues(self, tmp_path):
        output, log = tmp_path / "found", tmp_path / "log"
        settings = dict(TINY, epochs=15)
        given = [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
        process = Run(
            "experiment", "degradation", "--data", "digits", "--output", output, *given, log=log
        )
        place = output / "trials" / "plain-8-0" / "checkpoints"
        wait_for(lambda: [*place.glob("after-*")] or process.process.poll() is not None)
        process.process.send_signal(signal.SIGINT)
        text, _ = process.process.communicate(timeout=60)
        assert process.process.returncode == 130
        first, *_, last = text.splitlines()
        assert first == "degradation: 4 trials, 0 done."
        assert last.startswith("Interrupted: the state after step ")
        assert log.read_text() == "Stopping after this step. Press Ctrl-C again to abort it.\n"
        assert not [*(output / "results").glob("*")]
        (kept,) = place.glob("after-*")
        assert int(kept.name.removeprefix("after-")) < 15

        record = experiments.run("degradation", output, data.load("digits"), **settings)
        assert record.missing == ()
        assert len(record.results["plain-8-0"]["error"]) == 15
        assert not (output / "trials").exists()
