import itertools
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error

from keras_resnet import training
from keras_resnet.training import collectives
from keras_resnet.training.cluster import cluster


def config(**changes):
    content = {
        "cluster": {"worker": ["a.example:1", "b.example:2"]},
        "task": {"type": "worker", "index": 1},
    }
    return json.dumps({**content, **changes})


class TestStrategy:
    def test_alone_is_the_default_one(self):
        assert training.strategy() is tf.distribute.get_strategy()

    @pytest.mark.parametrize("name", ["gpu", "cpu:0", "cpu:", "cpu:x", "", "Mirrored"])
    def test_unknown_is_refused(self, name):
        with one_line_error("must be one of 'auto', 'mirrored', 'multiworker', 'cpu:N', 'tpu'"):
            training.strategy(name)

    @pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
    def test_mirrored_needs_gpus(self):
        with one_line_error("TensorFlow sees no GPU here; 'cpu:2' needs none"):
            training.strategy("mirrored")

    def test_tpu_needs_a_tpu(self, monkeypatch):
        monkeypatch.setenv("TPU_NAME", "local")
        with pytest.raises(ValueError, match="no TPU answers"):
            training.strategy("tpu")

    def test_devices_come_too_late(self):
        tf.add(1, 2)
        with one_line_error("must be chosen before TensorFlow computes anything"):
            training.strategy("cpu:64")

    def test_hosts_are_for_several_machines(self):
        with one_line_error("is for strategy 'multiworker', not 'auto'"):
            training.strategy(hosts=["localhost"])


SUMS = """
import tensorflow as tf
from keras_resnet import training
for size in (2, 3):
    strategy = training.strategy("cpu:2")
    @tf.function
    def total():
        context = tf.distribute.get_replica_context
        return strategy.run(lambda: context().all_reduce("sum", tf.ones(size)))
    print(strategy.experimental_local_results(total())[0].numpy().tolist())
"""


def test_a_process_can_run_several_models_on_several_devices():
    process = subprocess.run(
        [sys.executable, "-c", SUMS],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert process.stdout.split("\n")[:2] == ["[2.0, 2.0]", "[2.0, 2.0, 2.0]"], process.stderr


class TestCluster:
    def test_of_tf_config(self, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", config())
        assert cluster() == (["a.example:1", "b.example:2"], 1)

    def test_with_a_chief(self, monkeypatch):
        hosts = {"chief": ["c.example:3"], "worker": ["a.example:1", "b.example:2"]}
        monkeypatch.setenv("TF_CONFIG", config(cluster=hosts))
        assert cluster() == (["c.example:3", "a.example:1", "b.example:2"], 2)
        monkeypatch.setenv("TF_CONFIG", config(cluster=hosts, task={"type": "chief", "index": 0}))
        assert cluster()[1] == 0

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "7",
            "[]",
            "{}",
            '"worker"',
            config(cluster={}),
            config(cluster={"worker": "a:1"}),
            config(cluster={"worker": [1, 2]}),
            config(cluster={"worker": ["a", "b"]}),
            config(task={}),
            config(task={"type": "worker", "index": "first"}),
            config(task={"type": "ps", "index": 0}),
        ],
    )
    def test_that_is_no_cluster_is_refused(self, monkeypatch, text):
        monkeypatch.setenv("TF_CONFIG", text)
        with one_line_error('must be JSON such as {"cluster"'):
            cluster()

    @pytest.mark.parametrize("index", [2, -1, 99])
    def test_that_does_not_name_this_process_is_refused(self, monkeypatch, index):
        monkeypatch.setenv("TF_CONFIG", config(task={"type": "worker", "index": index}))
        with one_line_error(f"does not list this process: it is worker {index}, and the cluster"):
            cluster()

    def test_of_a_list_of_hosts(self):
        here = socket.gethostname()
        assert cluster(["a.example", f"{here}:77"]) == (["a.example:12345", f"{here}:77"], 1)

    @pytest.mark.parametrize("hosts", [["a.example"], ["localhost:1", "localhost:2"], []])
    def test_of_hosts_that_are_not_this_one_is_refused(self, hosts):
        with one_line_error("must list this machine once"):
            cluster(hosts)

    def test_of_slurm(self, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        for name, value in {
            "SLURM_PROCID": "2",
            "SLURM_STEP_NUM_TASKS": "3",
            "SLURM_STEP_NODELIST": "node[7-9]",
            "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
        }.items():
            monkeypatch.setenv(name, value)
        assert cluster() == (["node7:12345", "node8:12345", "node9:12345"], 2)

    def test_of_slurm_in_whatever_order(self, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        seen = []
        for number, (node, task) in enumerate(itertools.product(["n9", "n10"], ["0", "1"])):
            for name, value in {
                "SLURM_PROCID": str(number),
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NODELIST": "n[9-10]",
                "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
                "SLURMD_NODENAME": node,
                "SLURM_LOCALID": task,
            }.items():
                monkeypatch.setenv(name, value)
            addresses, index = cluster()
            seen.append(addresses[index])
        assert seen == ["n9:12345", "n9:12346", "n10:12345", "n10:12346"]

    def test_of_slurm_outside_of_srun_is_refused(self, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        monkeypatch.setenv("SLURM_PROCID", "0")
        with one_line_error("SLURM_STEP_NUM_TASKS not found"):
            cluster()

    def test_that_nobody_names_is_refused(self, monkeypatch):
        for name in ("TF_CONFIG", "SLURM_PROCID"):
            monkeypatch.delenv(name, raising=False)
        with one_line_error("neither hosts nor TF_CONFIG nor Slurm lists the workers"):
            cluster()

    def test_whose_port_is_in_use_is_refused(self, monkeypatch):
        with socket.socket() as other:
            other.bind(("", 0))
            other.listen()
            port = other.getsockname()[1]
            hosts = {"worker": [f"localhost:{port}", "localhost:1"]}
            task = {"type": "worker", "index": 0}
            monkeypatch.setenv("TF_CONFIG", config(cluster=hosts, task=task))
            with pytest.raises(OSError, match=f"port {port} of this machine, .* is in use"):
                training.strategy("multiworker")

    def test_whose_others_do_not_come_is_given_up(self, monkeypatch):
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        hosts = {"worker": [f"localhost:{port}", "localhost:1"]}
        monkeypatch.setenv("TF_CONFIG", config(cluster=hosts, task={"type": "worker", "index": 0}))
        with pytest.raises(training.LostWorkerError, match="waited 0 s for localhost:1, which"):
            training.strategy("multiworker", timeout=0.3)


WHAT_THEY_SAY = """
import sys, json
import keras, numpy as np, tensorflow as tf
from keras_resnet import training
from keras_resnet.training import collectives, strategies
strategy = training.strategy("multiworker", timeout=60)
count, index = collectives.workers(strategy)
said = {"worker": index, "long": "x" * 10 ** (3 * index), "ä": None}
said = collectives.exchanged(strategy, said)
with strategy.scope():
    number, count_of = keras.Variable([1.0, 2.0]), keras.Variable(5, dtype="int64")
number.assign(number + index), count_of.assign(5 + index)
mean = collectives.alignment(strategy, [number], mean=True)
mean()
means = number.numpy().tolist()
number.assign(number * (index + 1))
collectives.alignment(strategy, [number, count_of, number])()
try:
    collectives.agree(strategy, {"data": "same", "code": f"of {index}", f"only {index}": "yes"})
except ValueError as error:
    refused = str(error)
collectives.agree(strategy, {"data": "same"})
print(json.dumps([said, means, number.numpy().tolist(), int(count_of.numpy()), refused]))
"""


@pytest.fixture(scope="module")
def told():
    """What two processes say that each has been told."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("localhost", 0))
    hosts = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WHAT_THEY_SAY],
            env={
                **os.environ,
                "TF_CONFIG": config(
                    cluster={"worker": hosts}, task={"type": "worker", "index": index}
                ),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


class TestTwoProcesses:
    def test_are_told_what_each_has_said(self, told):
        expected = [
            {"worker": 0, "long": "x", "ä": None},
            {"worker": 1, "long": "x" * 1000, "ä": None},
        ]
        assert [said for said, *_ in told] == [expected, expected]

    def test_have_the_mean(self, told):
        assert [means for _, means, *_ in told] == [[1.5, 2.5]] * 2

    def test_have_what_the_first_one_had(self, told):
        assert [numbers[2:4] for numbers in told] == [[[1.5, 2.5], 5]] * 2

    def test_that_differ_are_refused_by_both(self, told):
        assert [refused for *_, refused in told] == [
            "the workers differ: code is of 1 on worker 1, of 0 on the chief; only 0 "
            "is None on worker 1, yes on the chief; only 1 is yes on worker 1, None on the chief."
        ] * 2


def test_one_process_is_told_its_own_word():
    strategy = tf.distribute.get_strategy()
    assert collectives.exchanged(strategy, [1]) == [[1]]
    collectives.agree(strategy, {"data": "any"})
    assert collectives.workers(strategy) == (1, 0)


def test_versions_change_with_the_code(tmp_path, monkeypatch):
    before = collectives.versions()
    assert before == collectives.versions()
    assert before["TensorFlow"] == tf.__version__
    (tmp_path / "one.py").write_text("")
    monkeypatch.setattr(collectives.keras_resnet, "__file__", str(tmp_path / "__init__.py"))
    assert collectives.versions()["keras_resnet"] != before["keras_resnet"]
    assert np.char.startswith(before["keras_resnet"], collectives.keras_resnet.__version__)
