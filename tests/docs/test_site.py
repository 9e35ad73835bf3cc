"""The documentation site: it builds without a warning, and links lead somewhere."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does: every broken link and anchor is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    process = subprocess.run(
        command,
        cwd=ROOT,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "WARNING" not in process.stderr
    return folder


def test_has_the_pages_of_both_languages(site):
    for page in ("index.html", "index.zh/index.html", "guides/transfer.zh/index.html"):
        assert (site / page).exists()


def test_explains_every_public_name_in_a_line(site):
    text = (site / "reference" / "transfer" / "index.html").read_text(encoding="utf-8")
    assert "Put a new classifier on a pretrained model." in text
    assert 'id="keras_resnet.transfer.heads.classifier"' in text


def test_needs_no_other_server(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in text
    assert 'src="http' not in text


@pytest.mark.parametrize("file", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=str)
def test_workflows_run_what_there_is(file):
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            for line in step.get("run", "").splitlines():
                if line.startswith("make "):
                    assert f"\n{line.split()[1]}:" in makefile
