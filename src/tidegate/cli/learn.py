"""`tidegate learn`: learns a stream row by row, and prints predictions made before each label was used."""

import errno
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

import typer

from tidegate.cli.fit import load_cell, with_options
from tidegate.config import LearnConfig, OnlineOptions
from tidegate.errors import ArgumentError, DataError, ModelFileError
from tidegate.files import from_json, printable, reading, to_json, write_atomic
from tidegate.files.atomic import make_folders
from tidegate.files.model_folder import UNSEALED, read_limited, seal, unseal

if TYPE_CHECKING:
    from tidegate.data import Row
    from tidegate.online import Judge, OnlineLearner

JUDGE = "judge.json"  # beside the model: what the errors were, and what waits for its label


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("learn")(with_options(learn, LearnConfig, "STREAM", "A CSV file or JSON lines; - is standard input."))


def learn(stream: str, *, as_json: bool, **given: Any) -> None:
    """Learn a stream online, and predict each row before its label is used.

    Prints, beside each prediction, the error of all predictions so far and that of a naive guess: the last number, or
    the most frequent label. A number is predicted from the row's other columns and the last number known, which the
    net corrects. With a delay the target in a row is that of DELAY rows before. Ends with the stream, at Ctrl-C or when
    told to terminate.
    """
    config = LearnConfig.make(**given)
    from tidegate.data.stream import read_stream

    if config.save is not None:
        _check_writable(Path(config.save))
    learner, judge = _start(config, given)
    follower = Follower(config, learner, judge)
    needed = [name for name in (config.target, config.time, config.id, *config.features) if name is not None]
    try:
        with _opened(stream) as lines, Stops() as stops:
            name = "the standard input" if stream == "-" else Path(stream).name
            found = read_stream(lines, printable(name), needed, decimal=config.decimal)
            for row in stops.until_asked(found):
                shown = follower.follow(row)
                if shown:
                    typer.echo(to_json(shown) if as_json else _as_text(shown))
        typer.echo(to_json(follower.summary()) if as_json else _verdict(follower.summary()))
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        if config.save is not None:
            _save(Path(config.save), learner, judge)


class Follower:
    """Feeds rows to a learner and its judge."""

    def __init__(self, config: LearnConfig, learner: "OnlineLearner", judge: "Judge") -> None:
        self.config, self.learner, self.judge = config, learner, judge
        self.rows = 0
        self.regression = learner.task == "regression"

    def follow(self, row: "Row") -> dict[str, Any]:
        """Predict and learn one row; returns what to print, if anything."""
        config, learner = self.config, self.learner
        key = None if config.id is None else row.key(config.id)
        label = row.float(config.target) if self.regression else row.get(config.target)
        x = self._features(row, key)
        backed_off = learner.backed_off
        try:
            prediction = learner.predict_one(x, key)
            learner.learn_one(x, label, key)
        except ArgumentError as error:
            raise DataError(f"{row.name}, row {row.number}: {error}") from error
        self.judge.judge(prediction, label, key)
        self.rows += 1
        backed = learner.backed_off > backed_off
        if self.rows % config.every and not (learner.drift or backed):
            return {}
        shown = {"row": row.number, "key": key, "time": None if config.time is None else row.get(config.time)}
        return {
            **shown,
            "prediction": prediction,
            "target": label,
            **self._errors(),
            "drift": learner.drift,
            "backed_off": backed,
        }

    def summary(self) -> dict[str, Any]:
        """The final figures."""
        learner = self.learner
        own = {"task": learner.task, "rows": self.rows, "scored": self.judge.count, **self._errors()}
        return {**own, "drifts": learner.drifts, "refused": learner.refused, "backed_off": learner.backed_off}

    def _errors(self) -> dict[str, float | None]:
        some = self.judge.count > 0
        return {"error": self.judge.error if some else None, "naive": self.judge.naive if some else None}

    def _features(self, row: "Row", key: str | None) -> dict[str, float | None]:
        config = self.config
        others = {config.target, config.time, config.id}
        names = config.features or [name for name in row.values if name not in others]
        x = {name: row.float(name) for name in names}
        if self.regression and self.learner.options.anchor == "none":  # else the learner reads it by itself
            last = self.judge.last(key)
            x[config.target] = None if last is None else float(last)
        return x


class Stops:
    """Ctrl-C and SIGTERM end the stream between two rows, never within one."""

    def __init__(self) -> None:
        self.asked = self.waiting = False

    def __enter__(self) -> "Stops":
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.waiting:
            raise Asked

    def until_asked(self, rows: Iterator["Row"]) -> Iterator["Row"]:
        """The rows, until a signal is received."""
        while not self.asked:
            try:
                self.waiting = True
                row = next(rows)
                self.waiting = False
            except (StopIteration, Asked):
                return
            finally:
                self.waiting = False
            yield row


class Asked(BaseException):
    """A signal was received while waiting for a row."""


@contextmanager
def _opened(stream: str) -> Iterator[IO[str]]:
    if stream == "-":
        if sys.stdin is None:
            raise ArgumentError("The standard input is closed. Give a file, or a stream on the standard input.")
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict", newline="")  # type: ignore[union-attr]
        yield sys.stdin
        return
    if not Path(stream).is_file():
        raise ArgumentError(f"There is no file {stream}. Give a CSV file, JSON lines, or - for the standard input.")
    with Path(stream).open(encoding="utf-8-sig", newline="") as file:
        yield file


def _start(config: LearnConfig, given: Mapping[str, Any]) -> tuple["OnlineLearner", "Judge"]:
    from tidegate.online import Judge, OnlineLearner

    if config.load is None:
        options = config.options()
        learner = OnlineLearner(**{**options.model_dump(), "cell": load_cell(config.cell)})
        return learner, Judge(options.task, options.delay, options.max_keys)
    for name in OnlineOptions.model_fields:
        if given.get(name) is not None and not name.startswith("snapshot"):
            raise ArgumentError(
                f"--{name.replace('_', '-')} is for a new learner, and --load continues an old one. Omit one of them."
            )
    learner = OnlineLearner.load(config.load).keep_snapshots(config.snapshots, config.snapshot_every)
    return learner, _judge(Path(config.load), learner)


def _judge(folder: Path, learner: "OnlineLearner") -> "Judge":
    """The judge that was saved with a learner, or a new one for a learner that was saved without one."""
    from tidegate.online import Judge

    path, new = folder / JUDGE, Judge(learner.task, learner.options.delay, learner.options.max_keys)
    data = read_limited(path)
    if data is None:
        return new
    try:
        with reading(path):
            content = from_json(data)
            unseal(data, content)  # version 0.1.0 wrote no hash
            judge = Judge.from_json(content)
            if (judge.task, judge.delay, judge.followed.most) != (new.task, new.delay, new.followed.most):
                raise ModelFileError("it belongs to another learner")
            return judge
    except ModelFileError as error:
        raise ModelFileError(f"{error}. Remove it to begin with new errors.") from error


def _check_writable(folder: Path) -> None:
    """Raise OSError if the folder cannot be written, before anything is learned."""
    make_folders(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _save(folder: Path, learner: "OnlineLearner", judge: "Judge") -> None:
    learner.save(folder)
    write_atomic(folder / JUDGE, seal(to_json({"sha256": UNSEALED, **judge.to_json()}).encode()))


def _as_text(shown: dict[str, Any]) -> str:
    parts = [f"row {shown['row']}"]
    parts += [f"{name} {_short(shown[name])}" for name in ("key", "time") if shown[name] is not None]
    parts += [f"{name} {_short(shown[name])}" for name in ("prediction", "target", "error", "naive")]
    parts += [word for name, word in (("drift", "drift"), ("backed_off", "backed off")) if shown[name]]
    return "  ".join(parts)


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else printable(str(value))


def _verdict(summary: dict[str, Any]) -> str:
    end = f"{summary['rows']} rows, {summary['drifts']} alarms of a drift, {summary['refused']} steps refused"
    end += f", backed off {summary['backed_off']} times" if summary["backed_off"] else ""
    if not summary["scored"]:
        return f"{end}; there was no label to score a prediction by"
    error, naive = summary["error"], summary["naive"]
    what, other = (
        ("mean absolute error", "the last number") if summary["task"] == "regression"
        else ("share of wrong labels", "the most frequent label")
    )  # fmt: skip
    return f"{what} {error:.5g} over {summary['scored']} predictions, {naive:.5g} by {other}; {end}"
