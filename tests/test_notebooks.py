"""The notebooks of the examples: their outputs come from running them."""

import base64
import io
import re
import shutil
from pathlib import Path

import nbformat
import PIL.Image
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
OF_A_MACHINE = re.compile(r"/(home|Users|root|tmp|var|opt|usr|work|private)/|[A-Z]:\\")

of_all = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def outputs(book):
    """The outputs of the code cells, in order."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    return [output for cell in code for output in cell.outputs]


def kinds(book):
    """The types of the outputs of each code cell."""
    return [
        [kind for output in cell.outputs for kind in (output.get("data") or [output.output_type])]
        for cell in book.cells
        if cell.cell_type == "code"
    ]


@of_all
def test_holds_its_outputs(file):
    assert file.stat().st_size < 1_000_000
    book = nbformat.read(file, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert book.cells[0].source.startswith("# ")
    drawn = 0
    for output in outputs(book):
        assert output.output_type in ("stream", "display_data", "execute_result")
        assert output.get("name", "stdout") == "stdout"  # nothing was warned of
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not OF_A_MACHINE.search(text)
        assert "Warning" not in text
        if picture := output.get("data", {}).get("image/png"):
            PIL.Image.open(io.BytesIO(base64.b64decode(picture))).verify()
            drawn += 1
    assert drawn >= 3
    assert not OF_A_MACHINE.search("".join(cell.source for cell in book.cells))


@of_all
def test_is_listed_and_a_page_of_the_site(file):
    assert f"]({file.name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
    site = (EXAMPLES.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"- project/examples/{file.stem}.md\n" in site


@pytest.mark.slow
@of_all
def test_runs(file, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    shutil.copy(file, tmp_path)
    book = nbformat.read(file, as_version=4)
    before = kinds(book)
    nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert kinds(book) == before
