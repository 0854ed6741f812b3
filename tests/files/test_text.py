"""JSON and text that terminals, spreadsheets and other programs take."""

import json
import math

import pytest

from tidegate.files import from_json, printable, spreadsheet_text, to_json


def test_json_is_valid_whatever_is_in_it() -> None:
    data = {"a": [math.nan, math.inf, -1.5, {"b": -math.inf}], "c": (1, None, True), "é": "a\x1b\x9b\u202e\ud800é"}
    text = to_json(data)
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"a bare {word}"))
    assert found == {"a": [None, None, -1.5, {"b": None}], "c": [1, None, True], "é": data["é"]}
    assert text.endswith('"é": "a\\u001b\\u009b\\u202e\\ud800é"}')
    assert printable(text) == text
    text.encode()


def test_json_with_nothing_lost() -> None:
    assert to_json([0.1, "x"], exact=True) == '[0.1, "x"]'
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json([math.nan], exact=True)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "[1e999]", "[" * 100_000, "{", b"\xff", "9" * 5000])
def test_json_that_is_not_valid_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|finite|nested|decode|digits"):
        from_json(text)


def test_numbers_are_read_as_they_were_written() -> None:
    assert from_json(to_json([1, 0.1, 1e100, -5e-324, True])) == [1, 0.1, 1e100, -5e-324, True]


def test_printable() -> None:
    assert printable("a\x1b[31m\nb\t\x7f\u2028é 日") == "a\\x1b[31m\\nb\\t\\x7f\\u2028é 日"


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@sum", "\ta", "\ra", "-1-1", "-inf"])
def test_formulas_are_text_in_a_spreadsheet(text: str) -> None:
    assert spreadsheet_text(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=1", "-1", "+2.5", "-1e-3", "1-2", "'=1"])
def test_other_text_stays(text: str) -> None:
    assert spreadsheet_text(text) == text
