"""Rows of a stream: each is read when it comes, and what is wrong names its place."""

import math
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
    assert (found[1].float("a"), found[1].get("b"), found[1].get("c"), found[1].float("c")) == (2.5, "z", "NA", None)
    assert found[0].get("c") is None


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
        ('{"load": 1}\n[1]\n', "s.csv, row 2: got list. Expected one JSON object in each line."),
        (
            '{"load": 1}\n{"load"\n',
            "s.csv, row 2 is not JSON: Expecting ':' delimiter: line 2 column 1 (char 8). Expected one JSON object in "
            "each line.",
        ),
    ],
)
def test_what_is_no_stream(text: str, error: str) -> None:
    with pytest.raises(DataError) as caught:
        rows(text, needed=["load"])
    assert str(caught.value) == error


def test_words_for_missing_numbers_are_words_in_a_column_of_text() -> None:
    found = rows("kind,n\nnone,none\nNA,-\n,\n ,nan\n")
    assert [row.get("kind") for row in found] == ["none", "NA", None, None]
    assert [row.float("n") for row in found] == [None] * 4
    (row,) = rows('{"a": NaN, "b": null, "c": "", "d": "nan", "e": Infinity}\n')
    assert [row.get(column) for column in "abcde"] == [None, None, None, "nan", math.inf]
    assert [row.float(column) for column in "abcd"] == [None] * 4


def test_the_key_of_a_row() -> None:
    found = rows('{"id": "none"}\n{"id": 7}\n{"id": null}\n{"id": NaN}\n{"id": ""}\n{}\n{"id": [1]}\n')
    assert [row.key("id") for row in found[:2]] == ["none", "7"]
    for number, got in ((3, "is empty"), (4, "is empty"), (5, "is empty"), (6, "is empty"), (7, "holds [1]")):
        with pytest.raises(DataError) as caught:
            found[number - 1].key("id")
        assert str(caught.value) == (
            f"s.csv, row {number}, column 'id' {got}. Expected the name of a series in every row."
        )


def test_json_without_a_needed_column() -> None:
    """The first object that lacks one is named, wherever it is; null is a missing value, and other columns are free."""
    good, bad = '{"load": null, "hour": 2}\n', '{"lod": 1, "hour": 2}\n'
    found = read_stream([good] * 300 + [bad, good], "s.jsonl", needed=["hour", "load"])
    assert [next(found).float("load") for _ in range(300)] == [None] * 300
    with pytest.raises(DataError) as caught:
        next(found)
    assert str(caught.value) == (
        "s.jsonl, row 301 has no column 'load'; its columns are lod, hour. Did you mean 'lod'? Write null where a "
        "value is missing."
    )
    assert len(list(read_stream([good, bad], "s.jsonl", needed=["hour"]))) == 2


def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(DataError) as caught, open("/proc/self/mem", encoding="utf-8") as file:
        list(read_stream(file, "mem"))
    assert str(caught.value) == "mem cannot be read: Input/output error. Give a file of text."


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
