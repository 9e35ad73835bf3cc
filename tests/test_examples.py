import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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
