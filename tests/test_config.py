"""Options: what is taken, what is refused, and in which words."""

import pytest

from tidegate.config import ForecastConfig, ForecastOptions, seconds
from tidegate.errors import ArgumentError

WRONG = {
    "horizon": ("abc", "The option 'horizon' must be a whole number of at least 1, got 'abc'. "
                "Give for example 12."),
    "season": (0, "The option 'season' must be a whole number of at least 1, got 0. Give for example 12."),
    "cell": ("", "The option 'cell' must be the name of a cell or FILE.py:NAME, got ''. "
             "Give for example lstm."),
    "hidden_size": ("5000", "The option 'hidden_size' must be a whole number from 1 to 4096, got '5000'. "
                    "Give for example 32."),
    "num_layers": (0, "The option 'num_layers' must be a whole number from 1 to 16, got 0. "
                   "Give for example 1."),
    "context": (1, "The option 'context' must be a whole number of at least 2, got 1. Give for example 96."),
    "known": (7, "The option 'known' must be names of columns with commas between them, got 7. "
              "Give for example holiday,price."),
    "static": (7, "The option 'static' must be names of columns with commas between them, got 7. "
               "Give for example region,size."),
    "positive": ("perhaps", "The option 'positive' must be true or false, got 'perhaps'. Give for example true."),
    "count": ("perhaps", "The option 'count' must be true or false, got 'perhaps'. Give for example true."),
    "refit": ("perhaps", "The option 'refit' must be true or false, got 'perhaps'. Give for example true."),
    "keep_net": ("perhaps", "The option 'keep_net' must be true or false, got 'perhaps'. Give for example true."),
    "quantiles": ("0.1,0.9", "The option 'quantiles' must be rising numbers between 0 and 1 "
                  "with 0.5 among them, got '0.1,0.9'. Give for example 0.1,0.5,0.9."),
    "budget": ("soon", "The option 'budget' must be a length of time above zero, got 'soon'. "
               "Give for example 90s or 2m."),
    "updates": (0, "The option 'updates' must be a whole number of at least 1, got 0. Give for example 2000."),
    "schedule": ("step", "The option 'schedule' must be constant or cosine, got 'step'. Give for example cosine."),
    "accumulate": (0, "The option 'accumulate' must be a whole number from 1 to 4096, got 0. Give for example 4."),
    "seed": (-1, "The option 'seed' must be a whole number from 0 to 4294967295, got -1. "
             "Give for example 0."),
    "learning_rate": (1, "The option 'learning_rate' must be a number above 0 and below 1, got 1. "
                      "Give for example 0.003."),
    "clip": (float("inf"), "The option 'clip' must be a number above 0, got inf. Give for example 1.0."),
    "gradient": ("truncated:4,2", "The option 'gradient' must be bptt, bptt:STATES, "
                 "bptt:MEMORY with a unit KiB, MiB or GiB, truncated:K1,K2 with whole numbers 1 <= K1 <= K2, rtrl, "
                 "snap:N, uoro, kfrtrl, rflo or eprop, and the last six may have one number more, the steps from "
                 "update to update, got 'truncated:4,2'. Give for example truncated:16,32."),
    "target": ("", "The option 'target' must be the name of a column, got ''. Give for example co2."),
    "time": (3, "The option 'time' must be the name of a column, got 3. Give for example date."),
    "id": ("", "The option 'id' must be the name of a column, got ''. Give for example store."),
    "covariates": (7, "The option 'covariates' must be names of columns with commas between them, got 7. "
                   "Give for example price,rain."),
    "wide": ("both", "The option 'wide' must be true or false, got 'both'. Give for example true."),
    "every": ("", "The option 'every' must be a number and a unit: ms, s, min, h, d, w, month, quarter or year, got "
              "''. Give for example 5min."),
    "how": ("median", "The option 'how' must be mean, sum, last, min or max, got 'median'. Give for example sum."),
    "decimal": (";", "The option 'decimal' must be a point or a comma, got ';'. Give for example ','."),
    "encoding": ("", "The option 'encoding' must be the name of an encoding, got ''. Give for example cp1252."),
    "out": ("", "The option 'out' must be the name of a folder, got ''. Give for example runs/co2."),
}  # fmt: skip


def test_every_option_has_a_wrong_value_here() -> None:
    assert set(WRONG) == set(ForecastConfig.model_fields)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_told_in_a_sentence(name: str) -> None:
    value, sentence = WRONG[name]
    with pytest.raises(ArgumentError) as caught:
        ForecastConfig.make(**({"target": "y", "horizon": 1} | {name: value}))
    assert str(caught.value) == sentence


def test_a_missing_value_is_told() -> None:
    with pytest.raises(ArgumentError) as caught:
        ForecastConfig.make(target="y")
    assert str(caught.value) == (
        "The option 'horizon' is missing: it must be a whole number of at least 1. Give for example 12."
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hiden_size", "There is no option 'hiden_size'. Did you mean 'hidden_size'?"),
        (
            "xyz",
            "There is no option 'xyz'. The options are horizon, season, cell, hidden_size, num_layers, context, "
            "positive, count, refit, keep_net, quantiles, budget, updates, seed, learning_rate, schedule, accumulate, "
            "clip, gradient.",
        ),
    ],
)
def test_an_unknown_option_is_told(name: str, sentence: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        ForecastOptions.make(horizon=1, **{name: 1})
    assert str(caught.value) == sentence


def test_text_from_a_command_line_is_read() -> None:
    config = ForecastConfig.make(
        target="y", horizon="3", quantiles="0.1, 0.5", covariates="a, b", budget="1h2m3s", gradient="Truncated: 2, 5"
    )
    assert (config.horizon, config.quantiles, config.covariates) == (3, (0.1, 0.5), ("a", "b"))
    assert (config.budget, config.gradient) == (3723.0, "truncated:2,5")


FORMS = ["bptt", "bptt:50", "BPTT: 64 MiB", "truncated:4,4", "rtrl", "rtrl:16", "SnAp:2", "snap: 1, 8", "uoro:3",
         "kfrtrl", "rflo:1", "eprop:20"]  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_the_forms_of_a_gradient(text: str) -> None:
    assert ForecastOptions.make(horizon=1, gradient=text).gradient == text.replace(" ", "").lower()


@pytest.mark.parametrize(
    "text", ["", "rtrl:", "rtrl:0", "rtrl:1,2", "snap", "snap:0", "snap:1,2,3", "uoro:a", "bptt:", "bptt:0",
             "bptt:64MB", "bptt:0KiB", "bptt:1.5GiB", "truncated:4", "truncated:0,3", "eprop,3", "xbptt", "bpttx"]
)  # fmt: skip
def test_what_is_no_gradient(text: str) -> None:
    with pytest.raises(ArgumentError, match=f"^The option 'gradient' must be bptt, .*, got '{text}'"):
        ForecastOptions.make(horizon=1, gradient=text)


def test_none_takes_the_default() -> None:
    assert ForecastOptions.make(horizon=2, seed=None, cell=None) == ForecastOptions.make(horizon=2)


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90.0), ("1.5m", 90.0), ("1m30s", 90.0), (90, 90.0), ("2h", 7200.0)]
)
def test_lengths_of_time(text: object, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["?", "90", "s", "1d", "1m x", True, None])
def test_what_is_no_length_of_time(text: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        seconds(text)


def test_the_part_for_the_estimator() -> None:
    config = ForecastConfig.make(target="y", horizon=4, seed=9)
    assert config.options() == ForecastOptions.make(horizon=4, seed=9)


def test_every_option_says_what_it_does() -> None:
    assert all(field.description for field in ForecastConfig.model_fields.values())
