"""The commands of docs/index.md, typed in a fresh environment."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASSETS = os.environ.get("KERAS_RESNET_ASSETS")
OF_PACKAGE = ("keras_resnet", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")
# The page's weights are downloaded, and its training takes minutes.
WEIGHTS = f"{ASSETS}/resnet50_weights_tf_dim_ordering_tf_kernels.h5"
QUICK = {"--weights imagenet ": f"--weights {WEIGHTS} --image-size 64 --epochs 1 "}


def typed(title):
    """The commands of a section of the page, block by block."""
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {title}\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if shutil.which(block.split()[0]) or "keras-resnet" in block]


class Terminal:
    """A shell whose programs are first those of a fresh environment."""

    def __init__(self, place):
        self.bin = place / "venv" / "bin"
        known = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.env = {**known, "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def __call__(self, script, folder):
        process = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=folder, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert process.returncode == 0, f"{script}\n{process.stdout}\n{process.stderr}"
        return process.stdout


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    """A fresh environment with the package installed from a copy, as the page says."""
    place = tmp_path_factory.mktemp("stranger")
    (place / "copy").mkdir()
    for name in OF_PACKAGE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / "copy" / name)
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    terminal = Terminal(place)
    for block in typed("Install"):
        terminal(block, place / "copy")
    return terminal


@pytest.fixture
def photographs(tmp_path):
    """The folder that the page shows, with some of the photographs of cats and dogs."""
    found = sorted(Path(ASSETS, "cats_dogs").rglob("*.jpg"))
    for kind in ("cat", "dog"):
        (tmp_path / "photographs" / kind).mkdir(parents=True)
        of_kind = [path for path in found if path.name.startswith(kind) or path.parent.name == kind]
        for number, path in enumerate(of_kind[:40], start=1):
            shutil.copy(path, tmp_path / "photographs" / kind / f"{number}.jpg")
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not ASSETS, reason="needs KERAS_RESNET_ASSETS, real weights and photographs")
def test_from_installation_to_a_server(terminal, photographs):
    commands = typed("A first classifier")
    assert [block.split()[:2] for block in commands] == [["keras-resnet", "data"]]
    script = "".join(commands)
    for long, quick in QUICK.items():
        assert long in script
        script = script.replace(long, quick)
    terminal(script, photographs)
    predict = script.strip().splitlines()[-1]
    (told,) = json.loads(terminal(f"{predict} --json", photographs))["predictions"]

    subprocess.run([terminal.bin / "pip", "uninstall", "-qy", "keras_resnet"], check=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    serve = ROOT / "tests" / "support" / "rest.py"
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    model = photographs / re.search(r'-v "\$PWD/(\S+):/models/pets"', page)[1] / "1"
    with subprocess.Popen(
        [terminal.bin / "python", serve, model, "pets", str(port)],
        cwd=photographs,
        env=terminal.env,
    ) as server:
        try:
            _wait_for(port, server)
            (*_, ask) = typed("A first server")
            answer = terminal(ask.replace("localhost:8501", f"localhost:{port}"), photographs)
        finally:
            server.terminate()
    state, _, predictions = answer.partition("}{")
    assert '"AVAILABLE"' in state
    (served,) = json.loads("{" + predictions)["predictions"]
    assert served["labels"] == [each["class"] for each in told["classes"]]
    assert served["probabilities"] == pytest.approx(
        [each["probability"] for each in told["classes"]], abs=1e-3
    )


def _wait_for(port, server):
    for _ in range(300):
        assert server.poll() is None
        with socket.socket() as tried:
            if tried.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(1)
    pytest.fail("the server does not answer")
