import ast
import contextlib
import re
from pathlib import Path

import numpy as np
import pytest

from keras_resnet import analysis

FOLDER = Path(__file__).parents[2] / "docs"
PAGES = ("measures.md", "measures.zh.md")


def code(page):
    text = (FOLDER / page).read_text(encoding="utf-8")
    return "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def test_examples_give_what_they_say():
    """Every line runs; what it gives is what the comment behind it says, if that is a value."""
    names, compared = {}, 0
    for line in code("measures.md").splitlines():
        statement, _, comment = line.partition("  # ")
        with contextlib.suppress(ValueError, SyntaxError):
            expected = ast.literal_eval(comment)
            np.testing.assert_equal(eval(statement, names), expected)
            compared += 1
            continue
        exec(statement, names)
    assert compared >= 5


def test_the_page_in_chinese_has_the_same_examples():
    english, chinese = (re.sub("  # [^\\d\\[(].*", "", code(page)) for page in PAGES)
    assert chinese == english


@pytest.mark.parametrize("page", PAGES)
def test_every_measure_of_the_table_has_an_example(page):
    names = re.findall(r"^\| `(\w+)`", (FOLDER / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) == len({*names}) >= 4
    for name in names:
        assert callable(getattr(analysis, name))
        assert f"analysis.{name}(" in code(page)
