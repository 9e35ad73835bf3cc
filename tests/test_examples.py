import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import PIL.Image
import pytest
from scenes import write_scenes

from keras_resnet.runs import objects

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script):
    """What an example prints, and what its docstring says that it prints."""
    process = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    docstring = ast.get_docstring(ast.parse(script.read_text()))
    return process.stdout.splitlines(), textwrap.dedent(
        docstring.split("Prints:\n\n")[-1]
    ).splitlines()


@pytest.mark.parametrize("name", ["build_nets", "pytorch_weights"])
def test_examples_print_what_they_say(name):
    printed, promised = run(EXAMPLES / f"{name}.py")
    assert printed == promised


@pytest.mark.slow
def test_digits_are_told_apart():
    printed, _ = run(EXAMPLES / "digits.py")
    assert float(printed[-2].split("%")[0]) >= 98


def test_every_example_is_listed():
    readme = (EXAMPLES / "README.md").read_text()
    for script in EXAMPLES.glob("*.py"):
        assert f"`{script.name}`" in readme


@pytest.mark.slow
def test_blood_cells_are_trained_on_tested_and_drawn(tmp_path):
    """With a small backbone and images, for an epoch."""
    folder = write_scenes(tmp_path / "data", train=3, val=1, test=2)
    small = ["--model", "CIFARResNet8", "--weights", "none", "--head", "c4", "--size", "48", "64"]
    script = EXAMPLES / "blood_cells.py"
    process = subprocess.run(
        [sys.executable, script, folder, *small, "--epochs", "1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    printed = process.stdout.splitlines()
    assert [line.split()[0] for line in printed[-4:-1]] == ["bar", "square", "all"]
    for picture in ("blood_cells.png", "blood_cells_errors.png"):
        PIL.Image.open(tmp_path / picture).verify()


@pytest.mark.slow
def test_the_inside_of_a_detector_is_drawn(tmp_path):
    folder = write_scenes(tmp_path / "data", train=1, val=1, test=1)
    for head in ("FPN", "C4"):
        model = objects.detector(f"FasterRCNN_CIFARResNet8_{head}", 2, min_size=48, max_size=64)
        model.save(tmp_path / f"{head}.keras")
    image = next((folder / "JPEGImages").iterdir())
    models = [tmp_path / "FPN.keras", tmp_path / "C4.keras"]
    process = subprocess.run(
        [sys.executable, EXAMPLES / "inside_a_detector.py", image, *models],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    assert PIL.Image.open(tmp_path / "inside_a_detector.png").width > 800
