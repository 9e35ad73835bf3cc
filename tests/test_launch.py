import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from errors import one_line_error

from keras_resnet.launch import launch

WORKER = "import json, os; task = json.loads(os.environ['TF_CONFIG'])['task']['index']; "


def program(code):
    return [sys.executable, "-c", WORKER + textwrap.dedent(code)]


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_every_process_is_told_who_it_is(tmp_path):
    code = f"open(f'{tmp_path}/{{task}}', 'w').write(os.environ['TF_CONFIG'])"
    assert launch(program(code), workers=3) == 0
    configs = [json.loads((tmp_path / str(index)).read_text()) for index in range(3)]
    assert [config["task"] for config in configs] == [
        {"type": "worker", "index": index} for index in range(3)
    ]
    (addresses,) = {tuple(config["cluster"]["worker"]) for config in configs}
    assert len(set(addresses)) == 3


def seen_by_workers(folder, workers, *names):
    """Values of environment variables in each of the workers that `launch` starts."""
    code = f"json.dump([os.environ.get(each) for each in {names}], open(f'{folder}/{{task}}', 'w'))"
    assert launch(program(code), workers=workers) == 0
    return [json.loads((folder / str(index)).read_text()) for index in range(workers)]


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [("0,1,2,3", 2, ["0,1", "2,3"]), ("3,5", 2, ["3", "5"]), ("0,1,2", 2, ["0", "1"])],
)
def test_gpus_are_divided_among_workers(monkeypatch, tmp_path, gpus, workers, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    seen = seen_by_workers(tmp_path, workers, "CUDA_VISIBLE_DEVICES")
    assert seen == [[each] for each in expected]
    with one_line_error(f"workers=9, but there are {len(gpus.split(','))} GPUs"):
        launch(["true"], workers=9)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("No devices were found", None),
        ("NVIDIA-SMI has failed.\n", None),
        ("GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-2)", "0"),
        ("GPU 0: NVIDIA L4 (UUID: GPU-1)\nGPU 1: NVIDIA L4 (UUID: GPU-2)", "0,1"),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists(monkeypatch, tmp_path, answer, expected):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert seen_by_workers(tmp_path, 1, "CUDA_VISIBLE_DEVICES") == [[expected]]


def test_chief_of_a_search_leaves_memory_to_the_worker_whose_gpu_it_shares(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    names = ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH")
    code = (
        "import os; name = os.environ['KERASTUNER_TUNER_ID']; "
        f"told = ' '.join(os.environ.get(each, '') for each in {names}); "
        f"open(os.path.join({str(tmp_path)!r}, name), 'w').write(told)"
    )
    assert launch([sys.executable, "-c", code], workers=2, search=True) == 0
    told = sorted(file.read_text() for file in tmp_path.iterdir())
    assert told == ["4 true", "4 true", "7 "]


def test_cores_are_divided_among_workers(tmp_path):
    cores = str(max(1, len(os.sched_getaffinity(0)) // 2))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    assert seen_by_workers(tmp_path, 2, *names) == [[cores, cores]] * 2


def test_cores_are_all_of_the_machine_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity")
    cores = str(max(1, os.cpu_count() // 2))
    assert seen_by_workers(tmp_path, 2, "TF_NUM_INTRAOP_THREADS") == [[cores]] * 2


def test_threads_that_were_chosen_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    assert seen_by_workers(tmp_path, 2, "TF_NUM_INTRAOP_THREADS") == [["7"]] * 2


def test_a_search_has_a_chief_besides_its_workers(tmp_path):
    code = f"""
    name = os.environ['KERASTUNER_TUNER_ID']
    address = os.environ['KERASTUNER_ORACLE_IP'] + ':' + os.environ['KERASTUNER_ORACLE_PORT']
    open(f'{tmp_path}/{{name}}', 'w').write(address)
    """
    command = [sys.executable, "-c", "import os\n" + textwrap.dedent(code)]
    assert launch(command, workers=2, search=True) == 0
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["chief", "worker0", "worker1"]
    assert len({file.read_text() for file in files}) == 1


def test_the_first_failure_is_the_answer():
    assert launch(program("raise SystemExit(3 if task == 1 else 0)"), workers=2) == 3
    assert launch(program("os.kill(os.getpid(), 9) if task else None"), workers=2) == 137


def test_those_left_behind_are_ended():
    start = time.monotonic()
    code = "import time; raise SystemExit(5) if task else time.sleep(100)"
    assert launch(program(code), workers=2, grace=0.5) == 5
    assert time.monotonic() - start < 50


def test_a_search_goes_on_without_a_lost_worker(tmp_path, capfd):
    code = f"""
    import os, pathlib, signal, time
    name = os.environ['KERASTUNER_TUNER_ID']
    if name == 'worker0':
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(2)
    pathlib.Path('{tmp_path}', name).touch()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert launch(command, workers=2, grace=0.5, search=True) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chief", "worker1"]
    assert "[worker 1] exited with code -9; the others carry on." in capfd.readouterr().err


def test_workers_without_the_chief_of_their_search_are_ended():
    start = time.monotonic()
    code = (
        "import os, sys, time; "
        "sys.exit(5) if os.environ['KERASTUNER_TUNER_ID'] == 'chief' else time.sleep(100)"
    )
    assert launch([sys.executable, "-c", code], workers=2, grace=0.5, search=True) == 5
    assert time.monotonic() - start < 50


def test_a_mistake_is_not_repeated(tmp_path):
    code = f"open(f'{tmp_path}/{{task}}', 'a').write('.'); raise SystemExit(2)"
    assert launch(program(code), workers=1, restarts=3) == 2
    assert (tmp_path / "0").read_text() == "."


def test_all_are_started_again(tmp_path, capfd):
    code = f"""
    import pathlib
    file = pathlib.Path('{tmp_path}') / str(task)
    file.write_text(file.read_text() + '.' if file.exists() else '.')
    raise SystemExit(task if len(file.read_text()) < 3 else 0)
    """
    assert launch(program(code), workers=2, restarts=1) == 1
    assert launch(program(code), workers=2, restarts=2) == 0
    assert [(tmp_path / str(index)).read_text() for index in range(2)] == ["..."] * 2
    assert (
        "A worker exited with code 1: restarting all of them, at most 0 more times"
        in capfd.readouterr().err
    )


def test_the_chief_speaks_for_itself_and_others_are_marked(capfd):
    assert launch(program("print('I am', task)"), workers=2) == 0
    output, errors = capfd.readouterr()
    assert output == "I am 0\n"
    assert errors == "[worker 1] I am 1\n"


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 0), ("SIGINT", 130), ("SIGHUP", 0)])
def test_a_signal_reaches_all(tmp_path, name, code):
    expected = code
    code = f"""
    import pathlib, signal, sys, time
    def end(*_):
        pathlib.Path('{tmp_path}', f'ended-{{task}}').touch()
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
    pathlib.Path('{tmp_path}', f'there-{{task}}').touch()
    time.sleep(100)
    """
    call = (
        f"from keras_resnet.launch import launch; raise SystemExit(launch({program(code)!r}, 2, 9))"
    )
    process = subprocess.Popen([sys.executable, "-c", call])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("there-*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    assert process.wait(30) == expected
    assert len(list(tmp_path.glob("ended-*"))) == 2


def test_what_is_no_text_is_repeated_as_far_as_it_is(capfd):
    assert launch(program("os.write(1, b'caf\\xe9\\n') if task else None"), workers=2) == 0
    assert capfd.readouterr().err == "[worker 1] caf\N{REPLACEMENT CHARACTER}\n"


def test_no_workers_are_refused():
    with one_line_error("workers=0 must be a whole number of at least 1"):
        launch(["true"], workers=0)
