"""Pages: one sound file, nothing fetched, nothing run, every string of a stranger shown as text."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from catalogue import ALL
from tidegate import report
from tidegate.equations.formats.latex import latex, legend
from tidegate.errors import ArgumentError
from tidegate.report.formulas import split

HOSTILE = '<script>alert(1)</script><img src="http://e.org/x" onerror=alert(1)>"\'&amp;</style></title>\x00\ud800'
VOID = {"meta", "br", "img", "link"}


class Reader(HTMLParser):
    """A browser's view: the tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def whole(text: str) -> str:
    square = '<svg xmlns="http://www.w3.org/2000/svg"><title>one</title></svg>'
    parts = [
        report.banner(text, tone="bad", more=text),
        report.key_figures([(text, text), (text, text, text)]),
        report.section(
            text,
            report.text(text, text),
            report.table([text, "n"], [[text, 1.5], [text, None]], caption=text, strong=[1]),
            report.columns(report.text(text), report.details(text, report.text(text), open_=True)),
            report.figure(square, text),
            report.diagram(square, text),
            report.listing(text, caption=text),
            report.formulas("a &= b", legend=[("a", text)]),
        ),
    ]
    return report.page(text, parts, subtitle=text, footer=text)


def assert_harmless(reader: Reader) -> None:
    assert not reader.open
    for tag, attributes in reader.tags:
        assert tag not in ("script", "iframe", "object", "img", "link", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "action", "data", "xlink:href"):
                assert (value or "").startswith("#")


def test_a_page_is_sound_and_shows_hostile_strings_as_text() -> None:
    html = whole(HOSTILE)
    reader = Reader(html)
    assert_harmless(reader)
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert reader.text.count(shown) == 26
    html.encode("utf-8")


def test_a_page_needs_nothing_else() -> None:
    html = whole("plain")
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "<script" not in html
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    assert not re.findall(r"https?://(?!www\.w3\.org/)", html)
    for rule in ("prefers-color-scheme: dark", "@media print", "@page"):
        assert rule in html


def test_the_title_is_in_the_head_and_on_the_page() -> None:
    html = report.page("Forecast of co2", [], subtitle="monthly", footer="made by hand", language="fr")
    assert '<html lang="fr">' in html
    assert "<title>Forecast of co2</title>" in html
    assert "<h1>Forecast of co2</h1>" in html
    assert '<p class="subtitle">monthly</p>' in html
    assert html.endswith("<footer>made by hand</footer></main></body></html>\n")


def test_a_table_sets_numbers_right_and_marks_rows() -> None:
    html = report.table(["method", "MAE", "note"], [["net", "0.31", "−"], ["naive", "−1,200.5", None]], strong=[0]).html
    assert '<th scope="col">method</th><th scope="col" class="number">MAE</th><th scope="col">note</th>' in html
    assert '<tr class="strong"><td>net</td><td class="number">0.31</td><td>−</td></tr>' in html
    assert '<tr><td>naive</td><td class="number">−1,200.5</td><td>–</td></tr>' in html


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: report.table(["a", "b"], [["1", "2"], ["3"]]),
            "table: row 1 has 1 cells; expected 2, one for each column",
        ),
        (
            lambda: report.banner("so", tone="great"),  # type: ignore[arg-type]
            "banner(tone='great'): expected one of 'good', 'mixed', 'bad', 'note'",
        ),
        (
            lambda: report.page("t", ["<b>raw</b>"]),  # type: ignore[list-item]
            "a page takes parts, got str: wrap it, for example in text(...)",
        ),
        (
            lambda: report.formulas(r"a &= \left( b"),
            r"cannot show '= \\left( b' (ExtraLeftOrMissingRightError): expected LaTeX mathematics",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_do(make: object, message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        make()  # type: ignore[operator]
    assert str(error.value) == message


# ------------------------------------------------------------------------------------------------- formulas
@pytest.mark.parametrize("name", ALL)
def test_formulas_of_every_cell_become_mathml(name: str) -> None:
    graph = ALL[name].graph
    part = report.formulas(latex(graph), legend=legend(graph))
    reader = Reader(part.html)
    assert_harmless(reader)
    rows = [tag for tag, attributes in reader.tags if tag == "mtr"]
    assert len(rows) >= latex(graph).count("&=")
    assert "&=" not in re.sub(r"<annotation.*?</annotation>|<pre>.*?</pre>", "", part.html, flags=re.DOTALL)
    assert (
        latex(graph).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#x27;") in part.html
    )


def test_rows_and_cells_are_cut_only_outside_braces_and_environments() -> None:
    cases = r"k &= \begin{cases} a & b \\ c & \{d\} \end{cases} \\ \mathrm{x\_y \\ z} &= \& "
    assert split(cases, "\\\\") == [
        r"k &= \begin{cases} a & b \\ c & \{d\} \end{cases} ",
        r" \mathrm{x\_y \\ z} &= \& ",
    ]
    assert split(r"k &= \begin{cases} a & b \end{cases}", "&") == ["k ", r"= \begin{cases} a & b \end{cases}"]


@pytest.mark.parametrize(
    "latex_text",
    [
        r"\text{<script>alert(1)</script>}",
        r"\href{javascript:alert(1)}{x}",
        r"\style{position:fixed}{x}",
        r"\class{evil}{x}",
        "a \x00 \ud800",
        r"\mathrm{&lt;script&gt;}",
    ],
)
def test_hostile_latex_is_harmless(latex_text: str) -> None:
    part = report.formulas(latex_text, legend=[(latex_text, "x")])
    reader = Reader(part.html)
    assert_harmless(reader)
    for _, attributes in reader.tags:
        assert not {"style", "href"} & set(attributes)
        assert attributes.get("class") in (None, "formulas", "wide", "aligned", "legend")
    part.html.encode("utf-8")


@pytest.mark.parametrize("broken", [r"\color", r"\begin{cases} a", "{" * 5000, r"\hspace{}", "a^b^c"])
def test_latex_that_cannot_be_read_is_an_error_of_its_own(broken: str) -> None:
    with pytest.raises(ArgumentError, match="expected LaTeX mathematics"):
        report.formulas(broken)


def test_a_function_stands_apart_from_its_argument() -> None:
    html = report.formulas(r"\log f_t &= \operatorname{LN}_{n}\left(x\right) \bmod 3", source=False).html
    assert '<mi>log</mi><mspace width="0.167em" /><msub>' in html
    assert "<mi>LN</mi>" in html
    assert "<mo>mod</mo>" in html
    assert "<details>" not in html


# ------------------------------------------------------------------------------------------------- imports
def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_reports_need_neither_torch_nor_pyplot() -> None:
    result = run("import sys, tidegate.report; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])")
    assert result.stdout == "[]\n"


def test_without_the_extra_the_error_says_what_to_install() -> None:
    result = run("import sys; sys.modules['matplotlib'] = None; import tidegate.report")
    last = result.stderr.strip().splitlines()[-1]
    assert last == "tidegate.errors.MissingExtraError: A report needs the extra 'app': pip install 'tidegate[app]'"
