"""The page of an experiment: what is in it is shown, and it needs no other file."""

# ruff: noqa: RUF001

import csv
import html.parser
import re
import xml.dom.minidom
from pathlib import Path

import browsing
import drawing
import jinja2.meta
import jinja2.nodes
import pytest

import keras_resnet.experiments
from keras_resnet.experiments import figures, pages
from keras_resnet.experiments.experiment import Report, Table
from keras_resnet.pages import figure

FOLDER = Path(keras_resnet.experiments.__file__).parent / "pages"
TEXTS = sorted(file.name.removesuffix(".en.md") for file in FOLDER.glob("[!_]*.en.md"))
FACTS = {
    "settings": {}, "data": "cifar10", "command": "keras-resnet experiment drawing",
    "machines": ["a machine"], "seconds": 100.0,
}  # fmt: skip
HOSTILE = ["a|b", "<b>bold</b>", "*x*", "_x_", "# x", "[a](b)", "`a`", "a\\b", "&lt;", "a\nb",
           "1. a", "- a", "$x$", "~~a~~", "snake_case_name", "中文"]  # fmt: skip


class Page(html.parser.HTMLParser):
    """What a page shows, and what it names."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.uses, self.labels, self.links, self.tags = [], [], [], [], []
        self.cells, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.labels += [attributes["aria-label"]] if tag == "svg" else []
        self.links += [attributes["href"]] if tag == "a" else []
        if tag == "use":
            self.uses.append(attributes["href"])
        self.uses += re.findall(r"url\((.*?)\)", " ".join(map(str, attributes.values())))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        self.words.append(data)
        if self.cells and self.lasttag in ("td", "th"):
            self.cells[-1] += data.strip("\n")


def written(folder, text, report, **facts):
    """The Markdown and the HTML of a text."""
    with drawing.there({"en": text, "zh": text}):
        pages.write(folder, "drawing", report, {**FACTS, **facts})
    return (folder / "report.md").read_text(), (folder / "report.html").read_text()


def picture(numbers):
    with figure() as (drawn, axes):
        figures.spread(axes, range(len(numbers)), [numbers, numbers[::-1]], "numbers")
        axes.legend()
    return drawn


class TestTables:
    def test_are_aligned_and_rounded(self, tmp_path):
        rows = [["plain", 20, 0.12345, None, 1234567.8, True], ["residual", 32, None, None, 0.5, 0]]
        table = Table(("kind", "depth", "error", "nothing", "count", "yes"), rows, ("error",))
        text = '# Title\n\n{{ table("t", "", "layers", "error", "n", "c", "y") }}\n'
        markdown, page = written(tmp_path, text, Report({}, {"t": table}))
        assert markdown.split("\n\n")[2].splitlines() == [
            "|  | layers | error | n | c | y |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            "| plain | 20 | 12.3% | – | 1,234,568 | True |",
            "| residual | 32 | – | – | 0.5 | 0 |",
        ]
        assert page.count("<tr>") == 3
        with (tmp_path / "t.csv").open(newline="") as file:
            head, *found = csv.reader(file)
        assert head == list(table.columns)
        assert found[0] == ["plain", "20", "0.12345", "", "1234567.8", "True"]

    def test_words_in_another_language(self, tmp_path):
        text = '# T\n\n{{ table("t", "a", words={"plain": "普通"}) }}\n'
        markdown, _ = written(tmp_path, text, Report({}, {"t": Table(("a",), [["plain"], [1]])}))
        assert "| 普通 |" in markdown

    def test_without_rows(self, tmp_path):
        text = '# T\n\n{{ table("t", "a", "b") }}\n'
        _, page = written(tmp_path, text, Report({}, {"t": Table(("a", "b"), [])}))
        assert Page(page).cells == ["a", "b"]

    @pytest.mark.parametrize("headings", ['"a"', '"a", "b", "c"'])
    def test_of_another_number_of_headings(self, tmp_path, headings):
        text = f'# T\n\n{{{{ table("t", {headings}) }}}}\n'
        with pytest.raises(ValueError, match="are not as many as"):
            written(tmp_path, text, Report({}, {"t": Table(("a", "b"), [[1, 2]])}))
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize("call", ['table("none")', 'figure("none", "a")', "no_value"])
    def test_of_a_name_that_there_is_not(self, tmp_path, call):
        with pytest.raises((KeyError, jinja2.UndefinedError)):
            written(tmp_path, f"# T\n\n{{{{ {call} }}}}\n", Report({}))
        assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.0, "0"),
        (1_000_000, "1,000,000"),
        (0.12345, "0.123"),
        (-0.05, "-0.05"),
        (999.4, "999"),
        (999.6, "1,000"),
        (1e-5, "1 × 10⁻⁵"),
        (-2.346e-12, "-2.35 × 10⁻¹²"),
        ("word", "word"),
        (float("nan"), "–"),
    ],
)
def test_numbers_as_people_write_them(value, text):
    assert pages._number(value) == text


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.12345, "12.3%"), (None, "–"), (-0.0001, "0.0%"), (1, "100.0%")]
)
def test_percentages(fraction, text):
    assert pages._percent(fraction) == text


class TestNamesInTheData:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_are_shown_as_they_are(self, tmp_path, name):
        shown = " ".join(name.split())
        text = """# Title of {{ data }}

{{ data }} begins, and {{ data }} is within.

{{ table("t", data, "b") }}
"""
        table = Table(("a", "b"), [[name, 1], ["c", 2]])
        _, page = written(tmp_path, text, Report({}, {"t": table}), data=name)
        found = Page(page)
        words = "".join(found.words)
        assert f"Title of {shown}\n" in words
        assert f"{shown} begins, and {shown} is within." in words
        assert found.cells == [shown, "b", shown, "1", "c", "2"]
        assert found.tags.count("p") == 2  # the link to the other language, and the text
        assert not {"b", "em", "code", "ol", "ul", "h2", "del"} & set(found.tags)

    def test_are_captions_as_they_are(self, tmp_path):
        report = Report({}, {}, {"f": picture([1, 2, 3])})
        caption = " ".join(HOSTILE)
        _, page = written(tmp_path, '# T\n\n{{ figure("f", data) }}\n', report, data=caption)
        found = Page(page)
        assert found.labels == [" ".join(caption.split())]
        assert "".join(found.words).count(found.labels[0]) == 1
        assert not {"b", "em", "code", "img"} & set(found.tags)

    def test_names_with_underscores_are_legible_in_markdown(self, tmp_path):
        markdown, _ = written(tmp_path, "# {{ data }}\n\na\n", Report({}), data="avx512_bf16, x")
        assert markdown.startswith("# avx512_bf16, x\n")


class TestHtml:
    @pytest.fixture
    def page(self, tmp_path):
        text = drawing.TEXT + '\n{{ figure("again", "The *same* again.") }}\n'
        numbers = Table(("name", "number", "fraction"), [["a", 1, 0.5]])
        drawn = {"numbers": picture([1, 2, 3]), "again": picture([1, 2, 3])}
        report = Report({"mean": 1, "caption": "What <was> drawn."}, {"numbers": numbers}, drawn)
        return written(tmp_path, text, report)[1]

    def test_needs_no_other_file(self, page):
        found = Page(page)
        assert not {"img", "iframe", "image"} & set(found.tags)
        assert re.findall("<link[^>]*>", page) == ['<link rel="icon" href="data:,">']
        assert "src=" not in page
        assert "@import" not in page
        assert "http" not in page
        assert found.links == ["report.zh.html"]
        assert found.tags.count("svg") == 2

    def test_figures_have_names_of_their_own(self, page):
        found = Page(page)
        assert len(found.ids) == len(set(found.ids)) > 20
        assert len(found.uses) > 20
        assert {each.removeprefix("#") for each in found.uses} <= set(found.ids)

    def test_figures_say_what_they_show(self, page):
        assert Page(page).labels == ["What <was> drawn.", "The *same* again."]
        assert "<figcaption>The *same* again.</figcaption>" in page

    def test_links_to_pages_that_may_not_be_there_are_text(self, tmp_path):
        text = "# T\n\nSee [others](../index.md), [a paper](https://x.org/a), [zh](report.zh.md).\n"
        markdown, page = written(tmp_path, text, Report({}))
        assert "[others](../index.md)" in markdown
        assert "See others, " in page
        assert Page(page).links == ["report.zh.html", "https://x.org/a", "report.zh.html"]

    def test_the_same_numbers_make_the_same_text(self, tmp_path):
        import matplotlib

        def text():
            return pages.svg_file(picture([1.0, 2.0, 5.0]))

        first = text()
        with matplotlib.rc_context({"lines.linewidth": 7, "axes.facecolor": "red"}):
            assert text() == first
        assert pages.svg_file(picture([1.0, 2.0, 5.1])) != first
        xml.dom.minidom.parseString(first)

    def test_fits_windows_of_all_widths(self, tmp_path):
        text = """# A long title with averyveryverylongwordthatdoesnotfitanywhere{{ "x" * 60 }}

{{ figure("wide", "A figure of three panels.") }}

{{ table("t", "a", "b", "c", "d", "e", "f", "g", "h") }}

```
keras-resnet experiment degradation --data DATA --set depths='[8,14]' --output OUTPUT --and so --on
```
"""
        with figure(3) as (wide, axes):
            figures.bars(axes[0], [1, 2], [[1, 2], [2, 3]], "a")
        table = Table(tuple("abcdefgh"), [["several words"] * 8])
        _, page = written(tmp_path, text, Report({}, {"t": table}, {"wide": wide}))
        found, complaints = browsing.measured(page, (360, 768, 1440), tmp_path)
        assert [width for width, *_ in found] == [360, 768, 1440]
        assert all(content <= width for width, content, _ in found), found
        assert all(height > 300 for *_, height in found)
        assert complaints == []


class TestChinese:
    @pytest.mark.parametrize(
        ("typed", "shown"),
        [
            ("误差, 然后: 结果;好", "误差，然后：结果；好"),
            ("网络(plain)越深", "网络（plain）越深"),
            ("(2016,第 4 节)", "（2016，第 4 节）"),
            ("[论文](https://a.org/b)中", "[论文](https://a.org/b)中"),
            ("ResNet-20, ResNet-56 (A) f(x)的", "ResNet-20, ResNet-56 (A) f(x)的"),
            ("第一行\n第二行", "第一行第二行"),
            ("第一行,\nResNet", "第一行，ResNet"),
            ("第一行\nResNet", "第一行\nResNet"),
            ("如下:\n\n- 一\n- 二", "如下：\n\n- 一\n- 二"),
            ("如下:\n1. 一", "如下：\n1. 一"),
            ("| 种类 | a, b |\n| --- | --- |", "| 种类 | a, b |\n| --- | --- |"),
            ("80%,比 10:30 早", "80%，比 10:30 早"),
            ('(用 `f("a", "甲")`,好)', '（用 `f("a", "甲")`，好）'),
            ("```\nf(甲, 乙)\n```", "```\nf(甲, 乙)\n```"),
        ],
    )
    def test_punctuation_and_lines(self, typed, shown):
        assert pages._as_chinese(typed) == shown


def calls(text):
    """The figures and tables of a text, with the number of headings, and the values it uses."""
    tree = pages._environment().parse(text)
    found = [
        (call.node.name, call.args[0].value, len(call.args))
        for call in tree.find_all(jinja2.nodes.Call)
        if isinstance(call.node, jinja2.nodes.Name) and call.node.name in ("figure", "table")
    ]
    includes = [each.template.value[:-6] for each in tree.find_all(jinja2.nodes.Include)]
    return found, includes, jinja2.meta.find_undeclared_variables(tree)


@pytest.mark.parametrize("name", TEXTS)
def test_both_languages_say_the_same(name):
    english, chinese = (
        calls((FOLDER / f"{name}.{language}.md").read_text(encoding="utf-8"))
        for language in pages.LANGUAGES
    )
    assert english == chinese


@pytest.mark.parametrize("name", TEXTS)
def test_emphasis_is_closed(name, tmp_path):
    """In CommonMark, ** beside Chinese punctuation may stay what it is."""
    from markdown_it import MarkdownIt

    for language in pages.LANGUAGES:
        text = re.sub(r"\{[{%].*?[%}]\}", "", (FOLDER / f"{name}.{language}.md").read_text())
        shown = MarkdownIt("commonmark").render(text)
        assert "*" not in re.sub("<(code|pre)>.*?</(code|pre)>", "", shown, flags=re.DOTALL)
