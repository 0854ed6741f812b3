"""Rows of a stream: each is read when it comes, and what is wrong names its place."""

from collections.abc import Iterator

import pytest

from tidegate.data import Row, read_stream
from tidegate.errors import DataError


def rows(text: str, **options: object) -> list[Row]:
    return list(read_stream(text.splitlines(keepends=True), "s.csv", **options))  # type: ignore[arg-type]


def test_a_csv() -> None:
    found = rows('a, b ,c\n1,"x,\ny",\n\n2.5,z,NA\n')
    assert [r.number for r in found] == [2, 4]
    assert found[0].values == {"a": "1", "b": "x,\ny", "c": ""}
    assert (found[1].float("a"), found[1].get("b"), found[1].get("c"), found[1].float("c")) == (2.5, "z", None, None)


def test_semicolons_bring_decimal_commas() -> None:
    (row,) = rows("a;b\n1,5;2\n")
    assert (row.float("a"), row.float("b")) == (1.5, 2.0)


def test_json_lines() -> None:
    found = rows('{"a": 1, "b": null}\n\n{"a": "2.5", "c": true}\n')
    assert [r.number for r in found] == [1, 3]
    assert (found[0].float("a"), found[0].get("b"), found[0].get("c")) == (1.0, None, None)
    assert (found[1].float("a"), found[1].get("c")) == (2.5, True)


def test_no_line_is_asked_for_before_its_row_is() -> None:
    asked: list[int] = []

    def lines() -> Iterator[str]:
        for n, line in enumerate(["a,b\n", "1,2\n", "3,4\n", "5,6\n"]):
            asked.append(n)
            yield line

    found = read_stream(lines(), "s")
    next(found)
    assert asked == [0, 1]
    next(found)
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("\n\n", "s.csv is empty. Expected a header row that names each column once, or JSON objects."),
        ("a,b,a\n1,2,3\n", "s.csv has two columns named 'a'. Expected a header row that names each column once."),
        ("lod,b\n1,2\n", "s.csv has no column 'load'; its columns are lod, b. Did you mean 'lod'?"),
        (
            "load,b\n1,2\n1,2,3\n",
            "s.csv, row 3: 3 fields where the header has 2. Expected as many fields in every row; put quotes around "
            "text that holds the separator.",
        ),
        (
            'load,b\n1,"2" 3\n',
            "s.csv, row 2: ',' expected after '\"'. Put quotes around text that holds the separator or quotes.",
        ),
        ('{"load": 1}\n[1]\n', "s.csv, row 2: a list. Expected one JSON object in each line."),
        (
            '{"load": 1}\n{"load"\n',
            "s.csv, row 2: no JSON (Expecting ':' delimiter: line 2 column 1 (char 8)). Expected one JSON object in "
            "each line.",
        ),
    ],
)
def test_what_is_no_stream(text: str, error: str) -> None:
    with pytest.raises(DataError) as caught:
        rows(text, needed=["load"])
    assert str(caught.value) == error


@pytest.mark.parametrize("value", ["high", "inf", "1e999"])
def test_what_is_no_number(value: str) -> None:
    (row,) = rows(f"a,b\n{value},2\n")
    with pytest.raises(DataError) as caught:
        row.float("a")
    assert str(caught.value) == (
        f"s.csv, row 2, column 'a': {value!r} is not a finite number. Expected a number, or an empty field where the "
        "value is missing."
    )


def test_what_is_no_text() -> None:
    def lines() -> Iterator[str]:
        yield "a,b\n"
        yield b"\xff".decode("utf-8")

    with pytest.raises(DataError) as caught:
        list(read_stream(lines(), "s.csv"))
    assert str(caught.value) == "s.csv holds a byte that is not UTF-8. Write it as UTF-8 text."
