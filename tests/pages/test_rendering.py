"""Pages are drawn in one style, need no other file, and show what they are given as it is."""

import re
import xml.dom.minidom

import browsing
import jinja2
import numpy as np
import PIL.Image
import pytest
from markupsafe import Markup

from keras_resnet import pages
from keras_resnet.pages import rendering

TEMPLATE = """{% extends "base.html" %}
{% import "macros.html" as page %}
{% block title %}{{ title }}{% endblock %}
{% block body %}
<h1>{{ title }}</h1>
{{ page.facts(facts) }}
{{ page.command(title) }}
{{ page.text(title) }}
{{ page.note(title) }}
{{ page.table(columns, rows) }}
{{ page.tiles(tiles) }}
{{ page.figure(drawn, title) }}
{{ page.figure(again) }}
{% endblock %}
"""
HOSTILE = ("<script>console.error(1)</script>", "a & b", '"quoted"', "$x$", "{{ 7 * 7 }}",
           "x" * 200, "\u05e9\u05dc\u05d5\u05dd \u202etxet", "\u4e2d\u6587")  # fmt: skip


def drawn(numbers=(1, 3, 2)):
    with pages.figure() as (figure, axes):
        axes.plot(numbers, color="#000000", label="numbers")
        axes.legend()
    return figure


def colours(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype("uint8")


@pytest.fixture
def page(monkeypatch):
    """A page of everything that there is a macro for."""
    there = rendering._environment()
    monkeypatch.setattr(
        there,
        "loader",
        jinja2.ChoiceLoader([jinja2.DictLoader({"it.html": TEMPLATE}), there.loader]),
    )
    rows = [
        [name, count, pages.percent(fraction, bar=True)]
        for name, count, fraction in zip(HOSTILE, range(998, 1006), (*[0.25] * 6, None, 1.0),
                                         strict=True)
    ]  # fmt: skip
    return pages.rendered(
        "it.html",
        title=" ".join(HOSTILE),
        facts=[(name, name) for name in HOSTILE] + [("count", 12345), ("none", None)],
        columns=["a_name_with_parts", "count", "fraction"],
        rows=rows,
        tiles=[(pages.picture(colours(300, 200), name), name) for name in HOSTILE],
        drawn=pages.svg(drawn(), 'a "label"', "one"),
        again=pages.svg(drawn(), "b", "two"),
    )


def test_text_is_shown_as_it_is(page):
    assert "<script>console" not in page
    assert "&lt;script&gt;console.error(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert ">12,345<" in page
    assert 'data-key="-Infinity"' in page


def test_values_that_are_missing_are_an_error():
    with pytest.raises(jinja2.UndefinedError):
        rendering._environment().from_string("{{ nothing }}").render()


def test_figures_keep_their_names_apart(page):
    ids = re.findall(r'\bid="([^"]*)"', page)
    uses = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)
    assert len(ids) == len({*ids}) > 20
    assert {used or clip for used, clip in uses} <= {*ids}
    assert 'aria-label="a &#34;label&#34;"' in page


def test_figures_are_drawn_in_the_colour_of_the_text():
    picture = pages.svg(drawn(), "a", "one")
    assert isinstance(picture, Markup)
    assert "#000000" not in picture
    assert "stroke: currentColor" in picture
    assert "#000000" in pages.svg_file(drawn())  # a file is seen on its own


def test_the_same_numbers_make_the_same_figure():
    import matplotlib

    first = pages.svg_file(drawn())
    with matplotlib.rc_context({"lines.linewidth": 7, "axes.facecolor": "red"}):
        assert pages.svg_file(drawn()) == first
    assert pages.svg_file(drawn((1, 3, 4))) != first
    xml.dom.minidom.parseString(first)


class TestPictures:
    @pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1"])
    def test_of_all_kinds(self, mode):
        image = PIL.Image.fromarray(colours(300, 200)).convert(mode)
        found = pages.picture(image, 'of "all" kinds')
        assert 'width="107" height="160" alt="of &#34;all&#34; kinds"' in found
        assert len(found) < 30_000

    def test_of_arrays(self):
        plain = pages.picture(np.full((8, 8, 1), 255.4), "white", shown=96)
        assert 'width="96" height="96"' in plain
        assert 'class="pixels"' in plain
        assert "pixels" not in pages.picture(colours(8, 8), "small")


class TestInABrowser:
    def test_fits_windows_of_all_widths(self, page, tmp_path):
        found, complaints = browsing.measured(page, (360, 768, 1440), tmp_path)
        assert [width for width, *_ in found] == [360, 768, 1440]
        assert all(content <= width for width, content, _ in found), found
        assert complaints == []

    def test_tables_sort(self, page, tmp_path):
        script = """(() => {
          const column = index => [...page.querySelectorAll(`tr td:nth-child(${index + 1})`)];
          const sorted = index => {
            page.querySelectorAll("th button")[index].click();
            return column(index).map(cell => cell.textContent.trim());
          };
          return [sorted(1), sorted(1), sorted(2), sorted(0)];
        })()"""
        ((down, up, fractions, names),), _ = browsing.examined(page, script, tmp_path)
        counts = [f"{count:,}" for count in range(998, 1006)]
        assert (up, down) == (counts, counts[::-1])
        assert fractions == ["100.0%", *["25.0%"] * 6, "–"]  # noqa: RUF001
        assert sorted(names) == sorted(HOSTILE)
        assert names != [*HOSTILE]

    def test_in_light_and_dark(self, page, tmp_path):
        script = """[page.body, ...page.querySelectorAll("h1, td, svg, figcaption, pre, .note")]
          .map(each => { const style = page.defaultView.getComputedStyle(each);
            return [style.color, style.backgroundColor]; })"""
        for dark in (False, True):
            (found,), _ = browsing.examined(page, script, tmp_path, dark=dark)
            ground = _lightness(found[0][1])
            assert (ground < 0.2) == dark
            for colour, background in found:
                behind = ground if background == "rgba(0, 0, 0, 0)" else _lightness(background)
                assert abs(_lightness(colour) - behind) > 0.3, (colour, background)

    def test_is_photographed(self, page, tmp_path):
        for dark in (False, True):
            browsing.screenshot(page, tmp_path / "page.png", tmp_path, 360, dark=dark, scale=0.5)
            with PIL.Image.open(tmp_path / "page.png") as shown:
                assert shown.width == 180
                assert shown.height > 300
                corner = np.asarray(shown.convert("L"))[0, 0]
            assert (corner < 128) == dark


def _lightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 / 255


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (23565250, "23,565,250"),
        (0.123456, "0.1235"),
        (153.25, "153.2"),
        (3042.4, "3,042"),
        (float("inf"), "inf"),
        (None, rendering.UNKNOWN),
        (float("nan"), rendering.UNKNOWN),
        (True, True),
        ("int8", "int8"),
    ],
)
def test_numbers_are_written_as_people_write_them(value, shown):
    assert pages.number(value) == shown
