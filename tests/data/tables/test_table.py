"""Reading tables: formats, missing values, and errors that name file, row and column."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.data import read_table
from tidegate.errors import DataError


def write(path: Path, text: str | bytes) -> Path:
    raw = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "t,v\n1,2.5\n2,-3\n"),
        ("a.csv", "\ufefft,v\r\n1,2.5\r\n2,-3\r\n\r\n"),
        ("a.tsv", "t\tv\n1\t2.5\n2\t-3"),
        ("a.csv", "t;v\n1;2,5\n2;-3\n"),
        ("a.csv.gz", "t,v\n1, 2.5 \n2,-3\n"),
        ("a.csv", "t,v\r1,2.5\r2,-3\r"),
        ("a.csv", "t, v\n1, 2.5\n\n2,-3\n\n"),
        ("a.csv", "sep=|\nt|v\n1|2.5\n2|-3\n"),
        ("a.csv", "# from a logger\n\nt|v\n1|2.5\n2|-3\n"),
        ("A.TXT", 't,v\n"1","2.5"\n2,-3e0\n'),
    ],
)
def test_text_files(tmp_path: Path, name: str, text: str) -> None:
    table = read_table(write(tmp_path / name, text))
    assert table.frame.columns == ["t", "v"]
    assert table.numbers("v").tolist() == [2.5, -3.0]


def test_parquet_and_frames_agree(tmp_path: Path) -> None:
    frame = pl.DataFrame({"v": [1.0, None, float("nan"), 4.0]})
    frame.write_parquet(tmp_path / "a.parquet")
    for table in (read_table(tmp_path / "a.parquet"), read_table(frame)):
        np.testing.assert_array_equal(table.numbers("v"), [1.0, np.nan, np.nan, 4.0])


def test_every_spelling_of_a_missing_value(tmp_path: Path) -> None:
    words = ["", "NA", "n/a", "NaN", "null", "None", "?", "-", ".", "#N/A", "<NA>"]
    path = write(tmp_path / "a.csv", "t,v\n" + "".join(f"0,{word}\n" for word in words) + "0,1\n")
    assert np.isnan(read_table(path).numbers("v")).tolist() == [True] * 11 + [False]


def test_words_for_missing_numbers_are_words_in_a_column_of_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id\nnone\n NA \n-\n\n")
    assert read_table(path).texts("id").to_list() == ["none", "NA", "-"]
    frame = pl.DataFrame({"id": ["nan", None, "", " x"], "n": [1.5, float("nan"), None, 2.0]})
    assert read_table(frame).texts("id").to_list() == ["nan", None, None, "x"]
    assert read_table(frame).texts("n").to_list() == ["1.5", None, None, "2.0"]


def test_frames_of_pandas_with_missing_values() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"id": ["none", pd.NA, None], "n": pd.array([1, pd.NA, 3], dtype="Int64")})
    table = read_table(frame)
    assert table.texts("id").to_list() == ["none", None, None]
    np.testing.assert_array_equal(table.numbers("n"), [1.0, np.nan, 3.0])


def complaint(data: object, column: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_table(data).numbers(column or "v")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "t,v\n1,2\n2,abc\n",
            "a.csv, row 3, column 'v': 'abc' is not a finite number. "
            "Expected a number, or an empty field where the value is missing.",
        ),
        (
            "t,v\n1,inf\n",
            "a.csv, row 2, column 'v': 'inf' is not a finite number. "
            "Expected a number, or an empty field where the value is missing.",
        ),
        (
            't,v\n1,"2\n3"\n1,2,3\n',
            "a.csv, row 3: 3 fields where the header has 2. "
            "Expected as many fields in every row; put quotes around text that holds the separator.",
        ),
        ("v,v\n1,2\n", "a.csv has two columns named 'v'. Expected a header row that names each column once."),
        ("", "a.csv is empty. Expected a header row that names each column once."),
        ("t,w\n1,2\n", "a.csv has no column 'v'; its columns are t, w."),
        ("t,vv\n1,2\n", "a.csv has no column 'v'; its columns are t, vv. Did you mean 'vv'?"),
        (
            "t,v\n1,2\n2,\xe9\n".encode("latin-1"),
            "a.csv, row 3: a byte is not UTF-8. Save the file as UTF-8, or name its encoding: --encoding cp1252 (in "
            "Python encoding='cp1252') for files of Windows.",
        ),
    ],
)
def test_what_is_wrong_with_a_text_file(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    assert complaint(write(tmp_path / "a.csv", text), "v") == sentence


def test_what_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    assert complaint(path) == f"There is no file {path}. Give the path of a CSV, TSV or Parquet file."
    assert complaint(write(tmp_path / "b.xls", "x")) == (
        "b.xls has an unknown extension. Expected .csv, .tsv, .txt, .csv.gz, .tsv.gz, .txt.gz or .parquet."
    )
    assert complaint([1, 2]) == ("data must be the path of a CSV, TSV or Parquet file, or a frame, got list.")


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "b.csv.gz").write_bytes(b"not gzip")
    assert complaint(tmp_path / "b.csv.gz") == (
        "b.csv.gz cannot be read: Not a gzipped file (b'no'). Expected a file of text, or of gzipped text."
    )
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    first, _, last = complaint(tmp_path / "b.parquet").partition(": ")
    assert first == "b.parquet cannot be read as a table"
    assert last.endswith("Write it again from its source.")


def test_rows_of_a_frame_are_counted_from_zero() -> None:
    assert complaint(pl.DataFrame({"v": ["1", "x"]}), "v") == (
        "the frame, row 1, column 'v': 'x' is not a finite number. "
        "Expected a number, or an empty field where the value is missing."
    )


def test_an_unusual_line_separator_inside_a_field_is_text(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "v,note\n1,a\u2028b\n2,c\n"))
    assert table.numbers("v").tolist() == [1.0, 2.0]


def test_an_empty_row_of_a_single_column_is_a_missing_value(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_table(write(tmp_path / "a.csv", "v\n1\n\n2\n")).numbers("v"), [1, np.nan, 2])


def test_a_value_too_large_to_compute_with(tmp_path: Path) -> None:
    assert complaint(write(tmp_path / "a.csv", "v\n1\n-1e300\n"), "v") == (
        "a.csv, row 3, column 'v': -1e+300 is too large to compute with. Expected numbers between -1e+100 and 1e+100; "
        "give the column in larger units, or leave the value empty."
    )
