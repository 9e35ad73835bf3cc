import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from keras_resnet import cli

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "cluster"
PAGE = ROOT / "docs" / "training_on_several_machines.md"
PAGES = [*sorted((ROOT / "docs").glob("*.md")), FOLDER / "README.md"]
SLURM, KUBERNETES = FOLDER / "slurm.sh", FOLDER / "kubernetes.yaml"
OF_OTHER_PROGRAMS = {"--requeue", "--signal"}  # that the pages speak of
PODS = 4


def stub(folder, name, script):
    """A program of that name, on the path of what `run` runs."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def environment(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}


@pytest.fixture
def programs(tmp_path, environment):
    return tmp_path / "programs"


class TestKubernetes:
    @pytest.fixture
    def objects(self):
        return {each["kind"]: each for each in yaml.safe_load_all(KUBERNETES.read_text())}

    @pytest.fixture
    def job(self, objects):
        return objects["Job"]["spec"]

    @pytest.fixture
    def container(self, job):
        (container,) = job["template"]["spec"]["containers"]
        return container

    @pytest.fixture
    def pod(self, container, environment):
        """What a pod runs, and in which environment."""
        variables = {each["name"]: each["value"] for each in container["env"]}
        environment = {**environment, **variables, "JOB_COMPLETION_INDEX": "1"}
        return dict(args=[*container["command"], *container["args"]], env=environment)

    def test_all_pods_come_and_find_each_other(self, objects, job):
        assert job["completionMode"] == "Indexed"
        assert job["completions"] == job["parallelism"] == PODS
        service, template = objects["Service"], job["template"]
        assert service["spec"]["clusterIP"] == "None"
        assert service["metadata"]["name"] == template["spec"]["subdomain"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()

    def test_failures_end_the_job_where_they_would_come_again(self, job):
        pods = job["template"]["spec"]
        assert pods["restartPolicy"] == "Never"  # which podFailurePolicy wants
        assert pods["terminationGracePeriodSeconds"] >= 60
        assert job["backoffLimit"] >= 2 * PODS
        actions = {
            code: rule["action"]
            for rule in job["podFailurePolicy"]["rules"]
            for code in rule.get("onExitCodes", {}).get("values", [])
        }
        assert actions == {2: "FailJob", 143: "Ignore"}

    def test_what_is_mounted_is_claimed(self, objects, job, container):
        volumes = {each["name"]: each for each in job["template"]["spec"]["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
        claim = volumes["storage"]["persistentVolumeClaim"]["claimName"]
        assert claim == objects["PersistentVolumeClaim"]["metadata"]["name"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] > 0

    def test_a_pod_knows_its_place(self, objects, pod, programs, tmp_path, monkeypatch):
        stub(programs, "keras-resnet", f'printf %s "$TF_CONFIG" > {tmp_path}/config; exit 3')
        assert subprocess.run(**pod).returncode == 3
        config = (tmp_path / "config").read_text()
        assert len(json.loads(config)["cluster"]["worker"]) == PODS

        from keras_resnet.training import cluster

        monkeypatch.setenv("TF_CONFIG", config)
        job, service = (objects[kind]["metadata"]["name"] for kind in ("Job", "Service"))
        names = [f"{job}-{index}.{service}:{cluster.PORT}" for index in range(PODS)]
        assert cluster.cluster() == (names, 1)

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            ("exit 0", 0),
            ("""echo '{"model": "resnet50", "accuracy": 0.7}'""", 0),
            ("""echo '{"interrupted": "Asked to end"}'""", 143),
            ("exit 2", 2),
            ("kill -KILL $$", 137),
        ],
    )
    def test_only_a_finished_pod_is_done(self, pod, programs, script, code):
        stub(programs, "keras-resnet", script)
        assert subprocess.run(**pod).returncode == code

    def test_a_signal_is_passed_on_and_waited_for(self, pod, programs, tmp_path):
        asked = """trap 'sleep 0.2; echo "{\\"interrupted\\": \\"Asked\\"}"; exit 0' TERM"""
        stub(programs, "keras-resnet", f"{asked}\ntouch {tmp_path}/there\nsleep 5 & wait")
        process = subprocess.Popen(**pod, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 5
        while not (tmp_path / "there").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == '{"interrupted": "Asked"}\n'
        assert process.wait(5) == 143


class TestSlurm:
    def test_the_script_is_one(self):
        subprocess.run(["bash", "-n", SLURM], check=True)

    def test_it_asks_for_what_a_run_needs(self):
        options = re.findall(r"^#SBATCH (--[\w-]+)=?(.*)$", SLURM.read_text(), re.MULTILINE)
        options = dict(options)
        assert {"--nodes", "--gpus-per-node", "--cpus-per-task", "--requeue"} <= set(options)
        assert options["--ntasks-per-node"] == "1"
        assert options["--signal"] == "TERM@60"
        assert options["--open-mode"] == "append"

    @pytest.mark.parametrize(
        ("code", "interrupted", "restarts", "state", "again"),
        [
            (0, False, 0, "RUNNING", False),
            (0, True, 0, "RUNNING", True),
            (0, True, 99, "RUNNING", True),
            (0, True, 0, "COMPLETING", False),
            (1, True, 0, "RUNNING", True),
            (137, False, 9, "RUNNING", True),
            (1, True, 10, "RUNNING", False),
            (2, True, 0, "RUNNING", False),
        ],
        ids=str,
    )
    def test_it_comes_again_until_the_run_is_finished(
        self, environment, programs, tmp_path, code, interrupted, restarts, state, again
    ):
        checkpoints = f"mkdir -p runs/resnet50/checkpoints && exit {code}"
        stub(programs, "srun", checkpoints if interrupted else f"exit {code}")
        stub(programs, "squeue", f"echo {state}")
        stub(programs, "scontrol", 'echo "$@" > asked')
        environment |= {"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": str(restarts)}
        process = subprocess.run(["bash", SLURM], env=environment, cwd=tmp_path)
        assert process.returncode == code
        asked = tmp_path / "asked"
        assert (asked.read_text() if asked.exists() else "") == "requeue 77\n" * again


def commands(text):
    """The words of all commands of ours, those of `launch` and of what it launches apart."""
    text = re.sub(r"\\\n\s*", "", text)
    for line in re.findall(r"keras-resnet ((?:train|launch|summary)\b[^\n`]*)", text):
        words = shlex.split(re.split(r" (?:\|\|?|>|&) ?|\.\.\.", line)[0])
        while "--" in words:
            yield words[: words.index("--")]
            words = words[words.index("--") + 1 :]
        yield words


def options_of(name):
    return {
        option
        for parameter in cli.main.get_command(None, name).params
        for option in [*parameter.opts, *parameter.secondary_opts]
    }


@pytest.mark.parametrize("file", [*PAGES, SLURM, KUBERNETES], ids=lambda file: file.name)
def test_commands_have_the_options_that_there_are(file):
    for command, *words in commands(file.read_text()):
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= options_of(command), command


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_pages_speak_of_options_that_there_are(file):
    spoken = set(re.findall(r"`(--[a-z][a-z-]*)", file.read_text()))
    commands = ("train", "tune", "launch", "evaluate", "predict", "explain", "export")
    commands += ("bench", "data", "soup", "experiment")
    known = set().union(*map(options_of, commands))
    assert spoken - OF_OTHER_PROGRAMS <= known


def test_the_examples_are_whole():
    found = [list(commands(file.read_text())) for file in (SLURM, KUBERNETES)]
    for ((command, *words),) in found:
        assert command == "train"
        assert {"--strategy", "--data", "--output", "--batch-size"} <= set(words)
    assert len(list(commands(PAGE.read_text()))) >= 5


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_lead_somewhere(file):
    text = file.read_text()
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r"^\[\w+\]: (.+)$", text, re.MULTILINE)
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        if path.startswith("https://"):
            continue
        assert (file.parent / path).is_file(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", (file.parent / path).read_text(), re.MULTILINE)
            assert heading in {each.lower().replace(" ", "-") for each in headings}
    for name in re.findall(r"\]\[(\w+)\]", text):
        assert f"\n[{name}]: https://" in text


def test_the_table_is_what_the_formula_gives():
    text = PAGE.read_text()
    size = 4 * int(re.search(r"ResNet-50's\s+([\d,]+)\s+parameters", text)[1].replace(",", ""))
    inside = float(re.search(r"B_inside\s+=\s+(\d+)\s+GB/s", text)[1]) * 1e9
    one = [float(each) for each in re.findall(r"(\d+)\s+GB/s\s+for", text)]
    step, between = 256 / 2500, [1e9 * each for each in (*one, 8 * one[-1])]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d.*) \|$", text, re.MULTILINE)
    assert [int(gpus) for gpus, *_ in rows] == [8, 16, 32, 64, 128, 256]
    for gpus, machines, cells in rows:
        m = int(machines)
        assert int(gpus) == 8 * m
        times = [2 * 7 / 8 * size / inside + 2 * (m - 1) / m * size / each for each in between]
        assert cells == " | ".join(
            f"{1e3 * time:.1f}, {100 * step / (step + time):.1f} %" for time in times
        )
