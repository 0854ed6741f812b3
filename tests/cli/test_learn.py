"""`tidegate learn`: honest lines, errors that name their place, and nothing that was learned gets lost."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tidegate import cli
from tidegate.online import Judge, OnlineLearner

REMOVE = "Remove it to begin with new errors.\n"
SMALL = ["--hidden-size", "4", "--rule", "truncated:1,2", "--learning-rate", "0.01"]


def table(path: Path, count: int = 40, **columns: Any) -> Path:
    """A stream with a target, two features, and these columns beside them, functions of the row."""
    lines = [",".join(["wind", "hour", *columns, "load"])]
    for t in range(count):
        own = [math.sin(t / 4), t % 24, *(column(t) for column in columns.values()), 50 + 9 * math.sin((t + 2) / 4)]
        lines.append(",".join(map(str, own)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def learned(*arguments: Any, stdin: Any = None) -> list[dict[str, Any]]:
    run = CliRunner().invoke(cli.application(), ["learn", *map(str, arguments), *SMALL, "--json"], input=stdin)
    assert run.exit_code == 0, run.output
    return [json.loads(line) for line in run.stdout.splitlines()]


def main(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate", "learn", *map(str, arguments)])
    try:
        return cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)


def test_predictions_are_those_of_the_learner_before_each_label(tmp_path: Path) -> None:
    *lines, summary = learned(table(tmp_path / "s.csv"), "--target", "load")
    learner, judge = OnlineLearner(hidden_size=4, rule="truncated:1,2", learning_rate=0.01), Judge("regression")
    for t, line in enumerate(lines):
        y = 50 + 9 * math.sin((t + 2) / 4)
        x = {"wind": math.sin(t / 4), "hour": t % 24}
        judge.judge(learner.predict_one(x), y)
        assert line == {
            "row": t + 2, "key": None, "time": None, "prediction": learner.predict_one(x), "target": y,
            "error": judge.error if t else None, "naive": judge.naive if t else None, "drift": False,
            "backed_off": False,
        }  # fmt: skip
        learner.learn_one(x, y)
    assert summary == {
        "task": "regression", "rows": 40, "scored": 39, "error": judge.error, "naive": judge.naive, "drifts": 0,
        "refused": 0, "backed_off": 0,
    }  # fmt: skip


def test_without_an_anchor_the_last_number_is_a_feature(tmp_path: Path) -> None:
    *lines, _ = learned(table(tmp_path / "s.csv"), "--target", "load", "--anchor", "none")
    learner = OnlineLearner(hidden_size=4, rule="truncated:1,2", learning_rate=0.01, anchor="none")
    last = None
    for t, line in enumerate(lines):
        x = {"wind": math.sin(t / 4), "hour": t % 24, "load": last}
        assert line["prediction"] == learner.predict_one(x)
        last = line["target"]
        learner.learn_one(x, last)


def test_text_every_so_many_rows(tmp_path: Path) -> None:
    path = table(tmp_path / "s.csv", day=lambda t: f"2024-01-{t % 28 + 1:02}", site=lambda t: "AB"[t % 2])
    options = ["--target", "load", "--time", "day", "--id", "site", "--every", "15", *SMALL]
    run = CliRunner().invoke(cli.application(), ["learn", str(path), *options])
    first, second, end = run.stdout.splitlines()
    assert first.startswith("row 16  key A  time 2024-01-15  prediction ")
    assert second.startswith("row 31  key B  time 2024-01-02  prediction ")
    assert end.startswith("mean absolute error ")
    assert " over 38 predictions, " in end
    assert end.endswith(" by the last number; 40 rows, 0 alarms of a drift, 0 steps refused")


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("".join(f'{{"x": {t % 3}, "kind": "{"abc"[t % 3]}"}}\n' for t in range(200)), encoding="utf-8")
    *lines, summary = learned(path, "--target", "kind", "--task", "classification")
    assert lines[0]["prediction"] is None
    assert {line["prediction"] for line in lines[-3:]} == {"a", "b", "c"}
    assert summary["error"] < 0.5 < summary["naive"]


def test_late_labels_belong_to_earlier_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    late = ["", "", *(f"{10 * n}" for n in range(20))]
    path.write_text("x,y\n" + "".join(f"{n},{y}\n" for n, y in enumerate(late)), encoding="utf-8")
    *lines, summary = learned(path, "--target", "y", "--delay", "2")
    assert summary["scored"] == 17
    errors = [abs(lines[n]["prediction"] - 10 * n) for n in range(3, 20)]
    assert summary["error"] == pytest.approx(sum(errors) / 17)
    assert summary["naive"] == pytest.approx(30.0)


def test_chosen_features_and_values_that_are_missing(tmp_path: Path) -> None:
    path = table(tmp_path / "s.csv", note=lambda t: "text", rain=lambda t: "" if t % 2 else t)
    assert learned(path, "--target", "load", "--features", "rain,wind")[-1]["rows"] == 40


def test_the_standard_input_and_going_on_after_a_stop(tmp_path: Path) -> None:
    """Two halves with a restart in between print and leave what the whole does."""
    lines = table(tmp_path / "s.csv", site=lambda t: "AB"[t % 2]).read_text().splitlines(keepends=True)
    common = ["--target", "load", "--id", "site", "--json"]

    def run(text: list[str], *options: str) -> list[str]:
        arguments = ["learn", "-", *common, *options]
        done = CliRunner().invoke(cli.application(), arguments, input="".join(text))
        assert done.exit_code == 0, done.output
        return [json.dumps({**json.loads(line), "row": 0}) for line in done.stdout.splitlines()]

    whole = run(lines, *SMALL, "--save", str(tmp_path / "whole"))
    first = run(lines[:18], *SMALL, "--save", str(tmp_path / "kept"))
    second = run([lines[0], *lines[18:]], "--load", str(tmp_path / "kept"), "--save", str(tmp_path / "kept"))
    assert first[:-1] + second[:-1] == whole[:-1]
    snapshots = [OnlineLearner.load(tmp_path / name).snapshot() for name in ("whole", "kept")]
    assert snapshots[0] == snapshots[1]


def process(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tidegate", "learn", *map(str, arguments), *SMALL]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stream_and_what_was_learned_is_kept(which: signal.Signals, tmp_path: Path) -> None:
    """Rows are learned as they come: the lines of three rows are there while the pipe is still open."""
    running = process("-", "--target", "y", "--save", tmp_path / "kept")
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write("x,y\n1,2\n2,3\n3,4\n")
    running.stdin.flush()
    assert [running.stdout.readline().split()[1] for _ in range(3)] == ["2", "3", "4"]
    running.send_signal(which)
    output, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, "")
    assert output.endswith("3 rows, 0 alarms of a drift, 0 steps refused\n")
    assert OnlineLearner.load(tmp_path / "kept").steps == 3


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    path = table(tmp_path / "s.csv", count=3000)
    running = process(path, "--target", "load", "--save", tmp_path / "kept")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert (running.wait(timeout=60), running.stderr.read()) == (0, "")
    running.stderr.close()
    assert running.stdin is not None
    running.stdin.close()
    assert 0 < OnlineLearner.load(tmp_path / "kept").steps <= 3000


@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        (
            "x,y\n1,2\n2,3\nhigh,4\n",
            [],
            "s.csv, row 4, column 'x': 'high' is not a finite number. Expected a number, or an empty field where the "
            "value is missing.",
        ),
        (
            "x,y\n1,2\n2,3\n2,3,4\n",
            [],
            "s.csv, row 4: 3 fields where the header has 2. Expected as many fields in every row; put quotes around "
            "text that holds the separator.",
        ),
        (
            "x,y\n1,2\n2,3\n1e200,3\n",
            [],
            "s.csv, row 4: feature 'x' must be between -1e+100 and 1e+100, got 1e+200: give None or NaN where it is "
            "missing",
        ),
        (
            "x,y\n1,a\n2,b\n2,c\n",
            ["--task", "classification", "--max-classes", "2"],
            "s.csv, row 4: label 'c' is one more than max_classes=2: give a larger number",
        ),
        (
            '{"x": 1, "y": "a"}\n{"x": 1, "y": "b"}\n{"x": 1, "y": Infinity}\n',
            ["--task", "classification"],
            "s.csv, row 3: y must be a label: text, a finite number or a truth value, got inf: give None where it is "
            "missing",
        ),
        (
            '{"x": 1, "y": 1}\n{"x": 1, "y": 2}\n{"x": 1, "y": 3, "\\ud800": 2}\n',
            [],
            "s.csv, row 3: a feature's name must be text or a whole number of 64 bits, got '\\ud800'",
        ),
        (
            "x,y,id\n1,2,none\n1,2,NA\n1,2,\n",
            ["--id", "id"],
            "s.csv, row 4, column 'id' is empty. Expected the name of a series in every row.",
        ),
        (
            '{"x": 1, "y": 1, "wind": null}\n{"x": 1, "y": 2, "wind": 1}\n{"x": 1, "y": 2}\n',
            ["--features", "x,wind"],
            "s.csv, row 3 has no column 'wind'; its columns are x, y. Write null where a value is missing.",
        ),
        (
            '{"x": 1, "y": null}\n{"x": 1, "y": 2}\n{"x": 1}\n',
            [],
            "s.csv, row 3 has no column 'y'; its columns are x. Write null where a value is missing.",
        ),
        (
            '{"x": 1, "y": 1}\n{"x": 1, "y": 2}\n{"x": 1, "\\u001b[31mred": 2}\n',
            [],
            "s.csv, row 3 has no column 'y'; its columns are x, \\x1b[31mred. Write null where a value is missing.",
        ),
    ],
)
def test_a_bad_row_is_named_and_what_was_learned_before_is_kept(
    text: str, options: list[str], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text, encoding="utf-8")
    assert main(monkeypatch, path, "--target", "y", "--save", tmp_path / "kept", *SMALL, *options) == 2
    assert capsys.readouterr().err == f"tidegate: {error}\n"
    assert OnlineLearner.load(tmp_path / "kept").steps == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["nothing.csv", "--target", "y"], "There is no file nothing.csv. Give a CSV file, JSON lines, or - for the "
         "standard input."),
        (["s.csv"], "The option 'target' is missing: it must be the name of a column. Give for example load."),
        (["s.csv", "--target", "z"], "s.csv has no column 'z'; its columns are x, y."),
        (["s.csv", "--target", "y", "--features", "x,w"], "s.csv has no column 'w'; its columns are x, y."),
        (["s.csv", "--target", "y", "--load", "kept", "--delay", "2"], "--delay is for a new learner, and --load "
         "continues an old one. Omit one of them."),
        (["s.csv", "--target", "y", "--load", "kept"], "kept holds no model: there is no model.json in it"),
        (["s.csv", "--target", "y", "--every", "0"], "The option 'every' must be a whole number of "
         "at least 1, got '0'. Give for example 100."),
    ],
)  # fmt: skip
def test_wrong_use(
    options: list[str], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    assert main(monkeypatch, *options) == 2
    assert capsys.readouterr().err == f"tidegate: {error}\n"


def test_a_judge_that_is_damaged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kept = table(tmp_path / "s.csv"), tmp_path / "kept"
    OnlineLearner(hidden_size=4).learn_one({"hour": 1.0, "load": 2.0}).save(kept)
    for code, error in (
        (0, ""),
        (2, f"tidegate: {kept / 'judge.json'} is damaged: judge.task is missing. {REMOVE}"),
    ):
        assert main(monkeypatch, path, "--target", "load", "--features", "hour", "--load", kept) == code
        assert capsys.readouterr().err == error
        (kept / "judge.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"delay": 0', '"delay": 1', "its content does not have the hash in it"),
        ("", "", ""),
        (None, '{"task": "regression", "delay": 3, "max_keys": 1024, "scores": [0, 0, 0], "labels": [], '
         '"followed": []}', "it belongs to another learner"),
        (None, '{"task": "regression", "delay": 0, "max_keys": 1024, "scores": [-1, 0, 0], "labels": [], '
         '"followed": []}', "judge.scores.0 must be greater than or equal to 0, got -1"),
        (None, '{"task": "regression", "delay": 0, "max_keys": 1024, "scores": [1, NaN, 0], "labels": [], '
         '"followed": []}', "its specification is incomplete or at odds: NaN is not a finite number"),
        (None, '{"task": "regression", "delay": 0, "max_keys": 1024, "scores": [1, 0, 0], "labels": [], '
         '"followed": [["a", "x", []]]}', "judge.followed must hold numbers where the task is a regression"),
        (None, '{"task": "regression", "delay": 0, "max_keys": 1024, "scores": [1, 0, 0], "labels": [], '
         '"followed": [["a", 1, [[1, 1]]]]}', "judge.followed has 1 waiting predictions of one key"),
    ],
)  # fmt: skip
def test_a_judge_of_another_learner_or_with_another_number_is_refused(
    old: str | None, new: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path, kept = table(tmp_path / "s.csv"), tmp_path / "kept"
    assert main(monkeypatch, path, "--target", "load", "--save", kept, *SMALL) == 0
    judge = kept / "judge.json"
    judge.write_text(new if old is None else judge.read_text().replace(old, new))
    assert main(monkeypatch, path, "--target", "load", "--load", kept) == (2 if fault else 0)
    assert capsys.readouterr().err == (f"tidegate: {judge} is damaged: {fault}. {REMOVE}" if fault else "")


def no_constant(word: str) -> None:
    pytest.fail(f"a bare {word} is not JSON")


def test_a_label_of_nan_is_missing_and_all_json_is_valid(tmp_path: Path) -> None:
    path, kept = tmp_path / "s.jsonl", tmp_path / "kept"
    text = "".join(f'{{"x": {t % 3}, "at": NaN, "kind": {("NaN", "1", "null")[t % 3]}}}\n' for t in range(9))
    path.write_text(text, encoding="utf-8")
    options = ["--target", "kind", "--time", "at", "--task", "classification", "--json", "--save", str(kept)]
    run = CliRunner().invoke(cli.application(), ["learn", str(path), *options, *SMALL])
    *lines, summary = [json.loads(line, parse_constant=no_constant) for line in run.stdout.splitlines()]
    assert [line["target"] for line in lines[:3]] == [None, 1, None]
    assert summary["scored"] == 2
    judge = json.loads((kept / "judge.json").read_text(), parse_constant=no_constant)
    assert judge["labels"] == [[1, 3]]


def test_words_for_missing_numbers_are_labels_and_names(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    labels = ["none", "alarm", "none"]
    path.write_text(
        "x,id,kind\n" + "".join(f"{t % 3},{('NA', 'none')[t % 2]},{labels[t % 3]}\n" for t in range(120)),
        encoding="utf-8",
    )
    options = ["--target", "kind", "--id", "id", "--task", "classification"]
    *lines, summary = learned(path, *options, "--save", tmp_path / "kept")
    assert summary["scored"] > 100
    assert {line["prediction"] for line in lines[-10:]} == {"none", "alarm"}
    assert OnlineLearner.load(tmp_path / "kept").keys == ["NA", "none"]


def test_what_data_says_does_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"x": 1, "id": "a\\u001b[2J\\nrow 7", "at": "\\u009b", "y": 0.1}\n' * 2, encoding="utf-8")
    options = ["learn", str(path), "--target", "y", "--id", "id", "--time", "at", *SMALL]
    run = CliRunner().invoke(cli.application(), options)
    assert run.stdout.splitlines()[0].startswith("row 1  key a\\x1b[2J\\nrow 7  time \\x9b  prediction ")
    run = CliRunner().invoke(cli.application(), [*options, "--json"])
    assert not set(run.stdout) & {"\x1b", "\x9b"}
    assert json.loads(run.stdout.splitlines()[0])["key"] == "a\x1b[2J\nrow 7"


def test_a_loaded_learner_keeps_snapshots_only_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path / "s.csv")
    options = ["--target", "load", "--snapshots", "one", "--snapshot-every", "10"]
    assert main(monkeypatch, path, *options, "--save", "kept", *SMALL) == 0
    (tmp_path / "one").rename("moved")
    assert main(monkeypatch, path, "--target", "load", "--load", "kept") == 0
    assert not Path("one").exists()
    assert main(monkeypatch, path, *options, "--load", "kept") == 0
    assert sorted(p.name for p in Path("one").iterdir()) == [f"snapshot-{n:012}.safetensors" for n in (70, 80)]


def test_a_stream_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert main(monkeypatch, "/proc/self/mem", "--target", "y", *SMALL) == 2
    assert capsys.readouterr().err == "tidegate: mem cannot be read: Input/output error. Give a file of text.\n"
    monkeypatch.setattr(sys, "stdin", None)
    assert main(monkeypatch, "-", "--target", "y", *SMALL) == 2
    assert capsys.readouterr().err == (
        "tidegate: The standard input is closed. Give a file, or a stream on the standard input.\n"
    )


def test_a_place_that_cannot_be_written_is_told_before_anything_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = table(tmp_path / "s.csv")
    assert main(monkeypatch, path, "--target", "load", "--save", path / "kept", *SMALL) == 2
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(monkeypatch, path, "--target", "load", "--save", tmp_path, *SMALL) == 2
    end = "Check the path, its permissions and the free space.\n"
    assert capsys.readouterr() == (
        "",
        f"tidegate: {path / 'kept'} cannot be read or written: Not a directory. {end}"
        f"tidegate: {tmp_path} cannot be read or written: Permission denied. {end}",
    )


def test_numbers_are_read_by_the_rule_of_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.csv"
    path.write_text("day;load\n1;1.034\n2;970\n", encoding="utf-8")
    columns = path, "--target", "load", "--time", "day"
    assert main(monkeypatch, *columns) == 2
    assert "'1.034' may be read as 1.034 or as 1034" in capsys.readouterr().err
    assert [line.get("target") for line in learned(*columns, "--decimal", ",")] == [1034.0, 970.0, None]
