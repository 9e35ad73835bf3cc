"""What a machine is, and what it is fast at."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf
from errors import one_line_error

from keras_resnet import machine


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Nothing overrides the choice, and there is no GPU."""
    monkeypatch.delenv(machine.OVERRIDE, raising=False)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [])


def with_cpu(monkeypatch, tmp_path, text):
    info = tmp_path / "cpuinfo"
    info.write_text(text)
    monkeypatch.setattr(machine, "_INFO", info)


EPYC = (
    "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx512f avx512_bf16\n\nprocessor\t: 1\n"
)
XEON = "model name\t: Intel(R) Xeon(R)\nflags\t\t: avx512_bf16 amx_bf16\n"
OLD = "model name\t: Old\nflags\t\t: sse4_2 avx2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


class TestCPU:
    def test_is_what_linux_says(self, monkeypatch, tmp_path):
        with_cpu(monkeypatch, tmp_path, EPYC)
        found = machine.cpu()
        assert (found.model, found.bfloat16) == ("AMD EPYC", ("avx512_bf16",))
        assert found.cores >= 1

    def test_may_be_one_of_another_kind(self, monkeypatch, tmp_path):
        with_cpu(monkeypatch, tmp_path, ARM)
        assert machine.cpu().bfloat16 == ()
        monkeypatch.setattr(machine, "_INFO", tmp_path / "none")
        assert machine.cpu().flags == frozenset()

    @pytest.mark.parametrize(
        ("info", "name"),
        [
            (EPYC, "AMD EPYC (AVX512-BF16)"),
            (EPYC.replace("avx512f avx512_bf16", "avx avx2"), "AMD EPYC (AVX2)"),
            ("model name\t: Old\nflags\t\t: sse2\n", "Old"),
        ],
    )
    def test_cpus_of_one_model_differ_by_their_instructions(
        self, monkeypatch, tmp_path, info, name
    ):
        with_cpu(monkeypatch, tmp_path, info)
        assert machine.cpu().name == name

    def test_is_described_in_a_line(self, monkeypatch, tmp_path):
        with_cpu(monkeypatch, tmp_path, XEON)
        text = machine.describe()
        assert text.startswith("Intel(R) Xeon(R) (AMX), ")
        assert "bfloat16: avx512_bf16, amx_bf16. Python" in text
        monkeypatch.setenv(machine.ONEDNN, "0")
        assert machine.describe() == f"{text} TF_ENABLE_ONEDNN_OPTS=0."


class TestOneDNN:
    @pytest.mark.parametrize(
        ("info", "lacks"), [(EPYC, False), (XEON, False), (OLD, True), (ARM, False)]
    )
    def test_is_off_where_only_training_gains(self, monkeypatch, tmp_path, info, lacks):
        monkeypatch.delenv(machine.ONEDNN, raising=False)
        with_cpu(monkeypatch, tmp_path, info)
        assert machine.lacks_onednn() is lacks
        monkeypatch.setenv(machine.ONEDNN, "0")
        assert not machine.lacks_onednn()


class TestPreparation:
    """What commands set before they import TensorFlow."""

    @pytest.mark.parametrize(
        ("work", "given", "found"),
        [
            ("training", {}, ["1", None]),
            ("inference", {}, [None, "1"]),
            ("inference", {machine.POOLED: "0"}, [None, "0"]),
            (None, {}, [None, None]),
        ],
    )
    def test_is_for_the_work_of_a_command(self, tmp_path, work, given, found):
        (tmp_path / "cpuinfo").write_text(OLD)
        code = (
            "import os, pathlib, sys\n"
            "from keras_resnet import machine\n"
            "from keras_resnet.cli import console\n"
            "machine._INFO = pathlib.Path(sys.argv[1])\n"
            f"with console.answer(False, {work!r}):\n"
            "    print([os.environ.get(name) for name in (machine.ONEDNN, machine.POOLED)])"
        )
        ours = (machine.ONEDNN, machine.POOLED)
        bare = {name: value for name, value in os.environ.items() if name not in ours}
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "cpuinfo")],
            env={**bare, **given},
            **dict(capture_output=True, text=True, check=True),
        )
        assert ended.stdout.strip() == str(found)

    def test_is_nothing_once_tensorflow_is_imported(self, monkeypatch):
        monkeypatch.delenv(machine.POOLED, raising=False)
        machine.prepare("inference")
        assert machine.POOLED not in os.environ


class TestFastPrecision:
    @pytest.mark.parametrize(
        ("info", "precision"),
        [(EPYC, "bfloat16"), (XEON, "bfloat16"), (OLD, "float32"), (ARM, "float32")],
    )
    def test_follows_the_instructions_of_a_cpu(self, monkeypatch, tmp_path, info, precision):
        with_cpu(monkeypatch, tmp_path, info)
        assert machine.fast_precision()[0] == precision

    def test_is_float32_without_onednn(self, monkeypatch, tmp_path):
        with_cpu(monkeypatch, tmp_path, EPYC)
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        assert machine.fast_precision()[0] == "float32"

    @pytest.mark.parametrize(
        ("capabilities", "precision"),
        [
            ([(8, 0)], "bfloat16"),
            ([(9, 0), (8, 9)], "bfloat16"),
            ([(7, 5)], "float32"),
            ([(9, 0), (7, 0)], "float32"),
            ([None], "float32"),
        ],
    )
    def test_follows_the_tensor_cores_of_gpus(self, monkeypatch, tmp_path, capabilities, precision):
        with_cpu(monkeypatch, tmp_path, EPYC)  # which does not matter beside a GPU
        monkeypatch.setattr(
            tf.config,
            "list_physical_devices",
            lambda kind: capabilities if kind == "GPU" else [],
        )
        monkeypatch.setattr(
            tf.config.experimental,
            "get_device_details",
            lambda found: (
                {"device_name": "A card"} | ({"compute_capability": found} if found else {})
            ),
        )
        found, reason = machine.fast_precision()
        assert found == precision
        assert reason.startswith("A card has ")

    def test_may_be_overridden(self, monkeypatch, tmp_path):
        with_cpu(monkeypatch, tmp_path, EPYC)
        monkeypatch.setenv(machine.OVERRIDE, "float32")
        assert machine.fast_precision()[0] == "float32"
        monkeypatch.setenv(machine.OVERRIDE, "half")
        with one_line_error("KERAS_RESNET_PRECISION='half' must be one of 'float32'"):
            machine.fast_precision()
