import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import against, contenders, gpu, inference, report  # noqa: E402
from benchmarks.__main__ import merged  # noqa: E402
from benchmarks.machine import precisions, slug, write_jpeg_folder  # noqa: E402
from benchmarks.measure import can, measure  # noqa: E402
from benchmarks.worker import Process  # noqa: E402


def window(contender, precision, seconds, ours, work="train", batch=32):
    return {
        "contender": contender,
        "precision": precision,
        "work": work,
        "batch": batch,
        "seconds": seconds,
        "ours": ours,
        "first": 9.0,
    }


def start(contender, precision, peak):
    return {
        "contender": contender,
        "precision": precision,
        "imports": 2.0,
        "build": 1.0,
        "first_step": 5.0,
        "peak_mebibytes": {"train 32": peak},
    }


RESULTS = {
    "machine": "A machine.",
    "rates": {"float32": 2e11, "bfloat16": 4e11},
    "nets": {
        "ResNet-50": {
            "size": 224,
            "windows": [
                window(
                    "KerasHub", "float32", [4.0, 4.2, 3.9], {"float32": [3.0], "bfloat16": [2.0]}
                ),
                window("KerasHub", "bfloat16", [3.0, 3.0, 9.0], {"bfloat16": [2.0, 2.5, 1.0]}),
                window("PyTorch", "bfloat16", [2.0], {"bfloat16": [2.0]}),
            ],
            "starts": [
                start("keras_resnet", "bfloat16", 3000.0),
                start("keras.applications", "float32", 4000.0),
            ],
        }
    },
}


@pytest.mark.parametrize("kind", [contenders.Ours, contenders.Twin])
def test_contenders_train_from_files(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(contenders, "EPOCHS", 2)
    write_jpeg_folder(tmp_path, 40, 32)
    contender = kind(contenders.NETS["CIFAR ResNet-20"], "float32")
    assert contender.train_from_files(tmp_path, 16) > 0


@pytest.fixture
def report_of(tmp_path, monkeypatch):
    """Writes the report of some results, and returns it."""

    def written(cpus, notes=(), gpus=()):
        for name, results in cpus.items():
            folder = tmp_path / "results" / "cpus" / name
            folder.mkdir(parents=True)
            (folder / "peers.json").write_text(json.dumps(results))
            if name in notes:
                (folder / "notes.md").write_text(notes[name])
        (tmp_path / "results" / "gpus").mkdir()
        for name in gpus:
            (tmp_path / "results" / "gpus" / f"{name}.json").write_text(json.dumps(gpus[name]))
        monkeypatch.setattr(report, "HERE", tmp_path)
        report.write_report()
        return (tmp_path / "RESULTS.md").read_text()

    return written


class TestReport:
    def test_the_best_of_the_peers_counts(self):
        bar = report.Bar("ResNet-50", "train", 32, ("KerasHub",), 1.8)
        assert report.best_peer(RESULTS, bar) == (1.5, "KerasHub, bfloat16")

    def test_a_bar_may_be_about_one_precision(self):
        bar = report.Bar("ResNet-50", "train", 32, ("KerasHub",), 1.8, "float32", ("float32",))
        assert report.best_peer(RESULTS, bar) == (4 / 3, "KerasHub, float32")

    def test_names_misses_and_the_fraction_of_the_machine_that_is_used(self, report_of):
        text = report_of({"a-machine": RESULTS})
        # 1.8 / 1.5 of the rate that is told below.
        used, needed = (f"{part * 32 * 3 * 4.089e9 / 2 / 4e11:.0%}" for part in (1, 1.2))
        assert (
            "| KerasHub, bfloat16 | **1.50** | 1.8 | missed by 17%: ours reaches "
            f"{used} of the matmul rate, the target is {needed} |"
        ) in text
        assert "| **0.75** | at most 0.75 |" in text
        # 32 images in 2 s, three times 4.089 G multiply-adds for each.
        assert f"{32 * 3 * 4.089e9 / 2 / 4e11:.0%}" in text

    def test_has_a_section_for_each_kind_of_cpu(self, report_of, tmp_path):
        other = {**RESULTS, "machine": "Intel(R) Xeon(R) Platinum, 2 cores, bfloat16: amx_bf16."}
        text = report_of({"amd-epyc": RESULTS, "intel-xeon-platinum": other})
        assert text.count("\n### Targets\n") == 2
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings == ["## A machine.", "## Intel(R) Xeon(R) Platinum", "## GPUs"]
        assert "(#intelr-xeonr-platinum)" in text
        for folder in ("amd-epyc", "intel-xeon-platinum"):
            assert f"(results/cpus/{folder}/peers.png)" in text
            assert (tmp_path / "results" / "cpus" / folder / "peers.png").stat().st_size > 1000

    def test_without_bfloat16_targets_are_for_float32(self, report_of, tmp_path):
        windows = [window("PyTorch", "float32", [3.0], {"float32": [2.0]})]
        windows[0] |= {"work": "train", "batch": 32}
        nets = {"ResNet-50": {"size": 224, "windows": windows, "starts": []}}
        results = {"machine": "Old, 2 cores.", "rates": {"float32": 2e11}, "nets": nets}
        text = report_of({"old": results})
        assert "200 G multiply-adds per second in float32.\n" in text
        assert "| float32 | PyTorch | PyTorch, float32 | **1.50** | 1.1 |" in text
        assert (tmp_path / "results" / "cpus" / "old" / "peers.png").stat().st_size > 1000

    def test_notes_on_a_machine_are_in_its_section(self, report_of):
        text = report_of({"a": RESULTS, "b": RESULTS}, notes={"b": "- Memory is slow here."})
        assert text.index("- Memory is slow here.") > text.rindex("### Targets")

    def test_shows_gpus(self, report_of):
        measured = {
            "net": "ResNet-50",
            "work": "infer",
            "batch": 64,
            "size": 112,
            "precision": "bfloat16",
            "library": "keras_resnet",
        }
        rate = 4.089e9 * 64 / 4  # what one step needs: a quarter of the pixels
        card = {
            "device": "A card",
            "software": "JAX.",
            "rate": rate,
            "measured": [
                {**measured, "seconds": [2.0, 1.0, 4.0], "peak_mebibytes": 2048.0, "first": 30.0},
                {**measured, "error": "out of memory"},
            ],
        }
        text = report_of({"a": RESULTS}, gpus={"a-card": card})
        assert "| keras_resnet | 32 | 50% | 2,048 MiB | 30 s |" in text
        assert "| keras_resnet | out of memory |" in text

    def test_the_report_in_the_repository_is_of_the_results_beside_it(self, tmp_path, monkeypatch):
        shutil.copytree(report.HERE / "results", tmp_path / "results")
        written = (report.HERE / "RESULTS.md").read_text()
        monkeypatch.setattr(report, "HERE", tmp_path)
        monkeypatch.setattr(report, "_plot", lambda *_: None)
        report.write_report()
        assert (tmp_path / "RESULTS.md").read_text() == written

    def test_names_folders_by_the_kind_of_a_cpu(self):
        assert slug("Intel(R) Xeon(R) Platinum 8488C") == "intel-xeon-platinum-8488c"
        assert slug("AMD EPYC (AVX2)") == "amd-epyc-avx2"

    def test_new_measurements_replace_those_of_the_same_contender(self):
        old = RESULTS["nets"]["ResNet-50"]
        new = {
            "size": 224,
            "windows": [window("KerasHub", "bfloat16", [7.0], {"bfloat16": [2.0]})],
            "starts": [start("KerasHub", "bfloat16", 5000.0)],
        }
        windows = merged(old, new)["windows"]
        assert [each["seconds"] for each in windows] == [[4.0, 4.2, 3.9], [2.0], [7.0]]


class TestMeasurements:
    @pytest.mark.slow
    def test_peers_take_turns_with_ours(self):
        work = [("train", 4), ("infer", 4), ("build", 1)]
        found = measure("CIFAR ResNet-20", 32, work, [("stock Keras twin", "float32")], rounds=2)
        done = [(each["work"], each["batch"]) for each in found["windows"]]
        assert done == work
        assert all(len(each["ours"]["float32"]) >= 2 for each in found["windows"])
        ours = ["keras_resnet"] * len(precisions())
        assert [each["contender"] for each in found["starts"]] == [*ours, "stock Keras twin"]
        assert all(each["peak_mebibytes"]["train 4"] > 100 for each in found["starts"])

    def test_an_error_in_a_process_is_told(self):
        with (
            Process("keras_resnet", "CIFAR ResNet-20", "float32", 32) as process,
            pytest.raises(RuntimeError, match="nonsense"),
        ):
            process.do("nonsense")

    def test_inference_engines_do_not_train(self):
        assert can("OpenVINO", "infer", "float32")
        assert not can("OpenVINO", "train", "float32")


class Library:
    """A fake process of a library: the seconds of its turns, or the error it fails with."""

    def __init__(self, *turns, error=None):
        self.turns, self.error, self.asked = list(turns), error, []

    def ask(self, work, **options):
        self.asked.append((work, options))

    def answer(self):
        return {"error": self.error} if self.error else {"first": 1.0, "peak_mebibytes": 2.0}

    def do(self, work, seconds):
        return {"seconds": self.turns.pop(0)}


class TestGPU:
    WORK = gpu.WORK[0]

    def test_libraries_take_turns(self):
        libraries = {"a": Library(1.0, 3.0, 2.0), "b": Library(error="too little memory")}
        first, second = gpu.compare(libraries, self.WORK, 0.1)
        assert (first["library"], first["seconds"]) == ("a", [1.0, 3.0, 2.0])
        assert (second["library"], second["error"]) == ("b", "too little memory")
        options = {name: self.WORK[name] for name in ("net", "batch", "precision", "size")}
        assert libraries["b"].asked == [("prepare", {"of": "train", **options})]

    def test_plan_is_what_was_promised(self):
        found = {
            tuple(each[name] for name in ("net", "work", "precision", "batch")) for each in gpu.WORK
        }
        assert found == set(
            itertools.product(
                ("ResNet-50", "ResNeXt-50"), ("train", "infer"), ("bfloat16", "tf32"), (64, 256)
            )
        )

    def test_new_measurements_replace_earlier_ones_of_the_same(self, tmp_path):
        file = tmp_path / "card.json"
        mine, theirs = ({**self.WORK, "library": each, "seconds": [1.0]} for each in "ab")
        file.write_text(json.dumps({"measured": [mine, theirs]}))
        again = {**mine, "seconds": [2.0]}
        assert gpu._kept(file, [again]) == [again, theirs]

    def test_ends_well_without_a_gpu(self):
        if shutil.which("nvidia-smi"):
            pytest.skip("there may be a GPU")
        command = [sys.executable, "-m", "benchmarks.gpu"]
        told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert told.returncode == 0, told.stderr
        assert told.stdout.startswith("No GPU to measure: ")

    @pytest.mark.slow
    def test_is_rehearsed_without_tensorflow(self, tmp_path):
        for module in ("jax", "torch"):
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed: pip install {module}")
        # As if it were not installed: libraries may look for it.
        (tmp_path / "sitecustomize.py").write_text(
            "from importlib.machinery import PathFinder\n"
            "find = PathFinder.find_spec\n"
            "PathFinder.find_spec = lambda name, *rest: (\n"
            "    None if name.partition('.')[0] == 'tensorflow' else find(name, *rest)\n"
            ")\n"
        )
        command = [sys.executable, "-m", "benchmarks.gpu", "--rehearse"]
        path = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path}
        told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        assert told.returncode == 0, told.stderr
        lines = told.stdout.splitlines()
        assert len(lines) == len(gpu.REHEARSAL) * len(gpu.LIBRARIES)
        for line in lines:
            assert re.fullmatch(r"ResNet-18, .*: [\d,]+ images/s, [\d,]+ MiB", line)


@pytest.mark.slow
def test_two_versions_take_turns(monkeypatch, capsys):
    monkeypatch.setattr(against, "TURN", 0.1)
    monkeypatch.setattr(against, "WORK", [("CIFAR ResNet-20", 32, "float32", [("infer", 2)])])
    monkeypatch.setattr(sys, "argv", ["against", "HEAD", "--rounds", "2"])
    against.main()
    *_, commands, work = capsys.readouterr().out.splitlines()
    assert commands.startswith("keras-resnet --help")
    name, (now, then, ratio) = work[:52].strip(), map(float, work[52:].split())
    assert name == "CIFAR ResNet-20, 32 px, float32, infer 2"
    assert min(now, then, ratio) > 0


class TestInference:
    def test_ratios_are_times_over_the_first_ones(self):
        turns = {"ours": lambda: [2.0, 2.0], "theirs": lambda: [3.0, 3.0]}
        ours, theirs = inference.compared("batch 1", turns, rounds=2)
        assert ours.split()[-3:] == ["2000.0", "ms", "1.00x"]
        assert theirs.split()[-3:] == ["3000.0", "ms", "1.50x"]

    def test_a_failed_command_is_not_a_measurement(self):
        with pytest.raises(RuntimeError, match="no such weights"):
            inference.whole(sys.executable, "-c", "raise SystemExit('no such weights')")()

    def test_contenders_for_inference_only_are_measured_only_there(self):
        assert not {*contenders.OF_INFERENCE} & {*contenders.CONTENDERS}
        assert {inference.OURS, *inference.PEERS} <= {*contenders.EVERYONE}
