"""`OnlineLearner` against a loop in plain torch, and what it promises about states, keys, labels and breakage."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import tidegate as tg
from online_streams import colours, waves
from tidegate.equations import cell, exp, linear
from tidegate.errors import ArgumentError, TidegateNotice
from tidegate.gradients import TruncatedBPTT
from tidegate.online import Event, Forgotten, OnlineLearner, Refused
from tidegate.online.spec import to_spec


def tensors(learner: OnlineLearner) -> dict[str, torch.Tensor]:
    return to_spec(learner._core)[1]


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else 0.0


class ByHand:
    """An Elman net on numbers: scales of all that was seen, truncated back-propagation, torch's Adam."""

    def __init__(self, first: dict[str, torch.Tensor], rate: float, back: int, clip: float, outputs: int) -> None:
        names = ("layer.l0.h.x", "layer.l0.h.h", "layer.l0.h.bias")
        self.wx, self.wh, self.b = (first[name].double().requires_grad_() for name in names)
        self.head = torch.zeros(outputs, self.wh.shape[0], dtype=torch.float64, requires_grad=True)
        self.bias = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
        self.weights = [self.wx, self.wh, self.b, self.head, self.bias]
        self.optimiser = torch.optim.Adam(self.weights, lr=rate)
        self.back, self.clip = back, clip
        self.xs: list[np.ndarray] = []
        self.ys: list[Any] = []
        self.past: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.h = torch.zeros(self.wh.shape[0], dtype=torch.float64)

    def step(self, z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.wx @ z + self.wh @ h + self.b)

    def forward(self, x: dict[str, float], *others: float) -> torch.Tensor:
        """A step that reads these features, scaled here, and other numbers as they are."""
        self.xs.append(np.array([x[name] for name in sorted(x)]))
        deviation = np.std(self.xs, axis=0)
        z = (self.xs[-1] - np.mean(self.xs, axis=0)) / np.where(deviation > 0, deviation, 1.0)
        z = np.array([*z, *others])
        self.past = [*self.past, (torch.from_numpy(z), self.h)][-self.back :]
        with torch.no_grad():
            self.h = self.step(torch.from_numpy(z), self.h)
            return self.head @ self.h + self.bias

    def update(self, output_gradient: torch.Tensor) -> None:
        """The gradient in the outputs is that of the step as it was; the way back runs with the weights of now."""
        h = self.past[0][1]
        for z, _ in self.past:
            h = self.step(z, h)
        self.optimiser.zero_grad()
        h.backward(self.head.detach().T @ output_gradient)
        self.head.grad, self.bias.grad = torch.outer(output_gradient, self.h), output_gradient.clone()
        torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimiser.step()


@pytest.mark.parametrize("anchor", ["naive", "none"])
def test_a_regression_is_that_of_the_loop_by_hand(anchor: str) -> None:
    """With an anchor the net also reads the last number, scaled, and its output is the distance from it, in units of
    the root mean square of all distances so far."""
    options = {"rule": TruncatedBPTT(1, 5), "learning_rate": 0.02, "clip": 0.7, "anchor": anchor}
    learner, by_hand = OnlineLearner("elman", 6, **options), None
    for x, y in waves(60):
        guess = learner.predict_one(x)
        by_hand = by_hand or ByHand(tensors(OnlineLearner("elman", 6, anchor=anchor).learn_one(x)), 0.02, 5, 0.7, 1)
        ys = by_hand.ys
        mean, deviation = (np.mean(ys), np.std(ys)) if ys else (0.0, 0.0)
        last = (ys[-1] - mean) / deviation if deviation else 0.0
        out = by_hand.forward(x, *([last] if anchor == "naive" else []))
        begun = anchor == "naive" and bool(ys)
        origin, unit = (ys[-1], rms(np.diff(ys))) if begun else (mean, deviation)
        assert guess == pytest.approx(origin + unit * out.item(), rel=2e-4, abs=2e-4)
        ys.append(y)
        origin, unit = (ys[-2], rms(np.diff(ys))) if begun else (np.mean(ys), np.std(ys))
        by_hand.update(out - ((y - origin) / unit if unit else 0.0))
        learner.learn_one(x, y)
    assert abs(guess - y) > 0


def test_a_classification_is_that_of_the_loop_by_hand() -> None:
    learner = OnlineLearner("elman", 6, task="classification", rule="truncated:1,5", learning_rate=0.02, max_classes=3)
    by_hand, known = None, list[str]()
    for x, y in colours(60):
        guess = learner.predict_proba_one(x)
        by_hand = by_hand or ByHand(tensors(OnlineLearner("elman", 6, anchor="none").learn_one(x)), 0.02, 5, 1.0, 3)
        out = by_hand.forward(x)
        expected = torch.softmax(out[: len(known)], 0).tolist()
        assert list(guess) == known
        assert list(guess.values()) == pytest.approx(expected, abs=2e-4)
        known += [] if y in known else [y]
        output_gradient = torch.zeros(3, dtype=torch.float64)
        output_gradient[: len(known)] = torch.softmax(out[: len(known)], 0)
        output_gradient[known.index(y)] -= 1
        by_hand.update(output_gradient)
        learner.learn_one(x, y)
    assert learner.predict_one(x) == max(guess, key=learner.predict_proba_one(x).__getitem__)


def test_it_learns_what_only_memory_tells() -> None:
    """The sine as it is now leaves open whether it rises: who does not remember errs by 10 sin(0.6) 2 / pi = 3.6."""
    learner, errors = OnlineLearner(learning_rate=0.003, seed=1, anchor="none"), []
    for x, y in waves(1000):
        errors.append(abs(learner.predict_one(x) - y))
        learner.learn_one(x, y)
    assert np.mean(errors[-300:]) < 2.2


@pytest.mark.parametrize("options", [{}, {"delay": 3}, {"task": "classification"}, {"rule": "truncated:1,3"}])
def test_predicting_moves_nothing(options: dict[str, Any]) -> None:
    learner = OnlineLearner("lstm", 4, num_layers=2, **options)
    stream = colours(12) if options.get("task") else waves(12)
    for x, y in stream:
        before = learner.snapshot()
        first = learner.predict_one(x, "a")
        learner.predict_one(dict.fromkeys(x, 9.0), "b")
        learner.predict_one({**x, "new": 1.0}, "a")
        assert learner.predict_one(x, "a") == first
        assert learner.snapshot() == before
        learner.learn_one(x, y, "a")


@pytest.mark.parametrize("delay", [0, 2])
def test_what_was_predicted_before_has_no_part_in_what_is_learned(delay: int) -> None:
    looked, blind = (OnlineLearner("gru", 4, delay=delay) for _ in range(2))
    for x, y in waves(15):
        looked.predict_one({"a": 0.3, "b": 1.0})
        looked.predict_one(x)
        looked.learn_one(x, y)
        blind.learn_one(x, y)
    assert looked.snapshot() == blind.snapshot()


def test_without_a_label_the_state_moves_by_one_step_and_nothing_is_learned() -> None:
    learner = OnlineLearner("gru", 4, rule="truncated:1,3", anchor="none")
    for x, y in waves(5):
        learner.learn_one(x, y, 7)
    before = tensors(learner)
    before = {name: tensor.clone() for name, tensor in before.items()}
    x = {"a": 0.1, "b": 0.2}
    state = learner._core.tracks.kept[7].memory.state
    row, _ = learner._core.inputs.scaled(x)
    assert learner.learn_one(x, None, 7) is learner
    after = tensors(learner)
    expected = learner._core.net.layer.step(torch.tensor([row]), state)[1]
    assert torch.equal(after["keys.0.memory.state.0"], expected["h"][0])
    for name, tensor in after.items():
        if not name.startswith("keys"):
            assert torch.equal(tensor, before[name]), name
    assert learner.learn_one(x, math.nan, 7).steps == 7


def test_each_key_has_a_state_of_its_own() -> None:
    """With no labels and scales held still, a key's predictions are those of a learner that has met no other."""
    mixed, alone = OnlineLearner("gru", 4), {key: OnlineLearner("gru", 4) for key in ("a", "b")}
    for learner in (mixed, *alone.values()):
        for x, y in waves(30):
            learner.learn_one(x, y, "c")
        still = learner._core.inputs.scales
        learner._core.inputs.scaled = lambda numbers, still=still: ([numbers["a"], numbers["b"]], still)
    rng = np.random.default_rng(0)
    for _ in range(40):
        key, x = rng.choice(["a", "b"]), dict(zip("ab", rng.normal(size=2), strict=True))
        key = str(key)
        assert mixed.predict_one(x, key) == alone[key].predict_one(x, key)
        mixed.learn_one(x, None, key)
        alone[key].learn_one(x, None, key)
    assert mixed.predict_one(x, "a") != mixed.predict_one(x, "b")


def test_the_key_not_met_for_longest_is_forgotten() -> None:
    learner, heard = OnlineLearner("gru", 4, max_keys=2), list[Event]()
    learner.listeners.append(heard.append)
    for key in ("a", 2, "a", None):
        learner.learn_one([1.0], None, key)
    assert learner.keys == ["a", None]
    assert heard == [Forgotten(4, 2)]


@pytest.mark.parametrize("rule", ["rtrl", "truncated:1,4"])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_late_labels_give_the_gradients_of_labels_in_time(task: str, rule: str) -> None:
    """Weights held still: the k-th call with a delay learns what the first did without one.

    But for the last label that is known, an input that comes late too.
    """
    found: dict[int, list[torch.Tensor]] = {}
    for delay in (0, 3):
        learner = OnlineLearner("lstm", 4, task=task, rule=rule, delay=delay, anchor="none")
        stream = list(colours(25) if task == "classification" else waves(25))
        labels = [None] * delay + [y for _, y in stream]
        found[delay] = []
        for (x, _), y in zip([*stream, *stream[:delay]], labels, strict=True):
            learner.learn_one(x, y)
            net = learner._core.net
            net.adam.step = lambda weights, g, into=found[delay]: into.append(g.clone())  # type: ignore[misc]
    assert len(found[0]) == 24  # the first came before anything could be watched
    assert len(found[3]) == 25
    for late, early in zip(found[3][1:], found[0], strict=True):
        assert torch.equal(late, early)


def test_late_labels_are_predicted_from_the_newest_state() -> None:
    late, early = (OnlineLearner("gru", 4, rule="truncated:1,3", delay=delay) for delay in (3, 0))
    for x, _ in waves(10):
        late.learn_one(x)
        early.learn_one(x)
    assert torch.equal(tensors(late)["keys.0.ahead.0"], tensors(early)["keys.0.memory.state.0"])
    assert tensors(late)["keys.0.rows"].shape == (3, 3)


def test_labels_of_steps_before_the_stream_are_ignored() -> None:
    learner = OnlineLearner("gru", 4, delay=2)
    for _ in range(2):
        learner.learn_one([1.0, 2.0], 5.0)
    assert learner._core.net.adam.steps == 0
    assert learner.learn_one([1.0, 2.0], 5.0)._core.net.adam.steps == 1


def test_many_are_one_after_another() -> None:
    pl = pytest.importorskip("polars")
    stream = list(waves(12))
    keys = ["a", "b", "b"] * 4
    one = OnlineLearner("gru", 4)
    for (x, y), key in zip(stream, keys, strict=True):
        one.learn_one(x, y, key)
    xs, ys = [x for x, _ in stream], [y for _, y in stream]
    frame = pl.DataFrame(xs)
    for X, y in ((xs, ys), (frame, pl.Series(ys)), (frame, np.array(ys))):
        assert OnlineLearner("gru", 4).learn_many(X, y, keys).snapshot() == one.snapshot()
    array = OnlineLearner("gru", 4).learn_many(frame.to_numpy(), ys, np.array([1, 2, 2] * 4))
    assert array.keys == [1, 2]


def test_the_rule_may_be_given_as_such_and_chance_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    a = OnlineLearner("gru", 4, rule=TruncatedBPTT(1, 3)).learn_one([1.0], 2.0)
    b = OnlineLearner("gru", 4, rule="truncated:1,3").learn_one([1.0], 2.0)
    assert torch.equal(torch.rand(2), expected)
    assert a.snapshot() == b.snapshot()
    assert OnlineLearner("gru", 4, seed=1).learn_one([1.0], 2.0).snapshot() != a.snapshot()


# Guards


def test_gradients_are_clipped() -> None:
    learner = OnlineLearner("gru", 4, clip=0.05)
    norms = list[float]()
    for x, y in waves(20):
        learner.learn_one(x, y)
        learner._core.net.adam.step = lambda weights, g: norms.append(float(g.norm()))  # type: ignore[misc]
    assert max(norms) == pytest.approx(0.05, rel=1e-5)
    assert min(norms) < 0.05


@cell(states="h", source="a test: a state that overflows")
def explosive(x, h):
    h = exp(h + 20 * linear("n", x, bias=None) + 1)  # state
    return h


@pytest.mark.filterwarnings("ignore::tidegate.TidegateNotice")
@pytest.mark.parametrize("delay", [0, 2])
def test_a_step_that_overflows_is_refused(delay: int) -> None:
    learner, heard = OnlineLearner(explosive, 3, delay=delay), list[Event]()
    learner.listeners.append(heard.append)
    learner.learn_one([0.0], 1.0)
    for n in range(12):
        kept = {name: tensor.clone() for name, tensor in tensors(learner).items()}
        before, backed_off = learner.refused, learner.backed_off
        learner.learn_one([float(n % 3)], float(n) if n > 6 else None)
        if learner.refused == before + 1 and learner.backed_off == backed_off and not delay:
            now = tensors(learner)
            assert all(torch.equal(now[name], tensor) for name, tensor in kept.items() if "lasts" not in name)
        assert all(t.isfinite().all() for n, t in tensors(learner).items() if not n.endswith(("guesses", "lasts")))
    assert learner.refused == sum(isinstance(event, Refused) for event in heard) > 3
    assert {event.what for event in heard if isinstance(event, Refused)} >= {"state"}


def test_a_gradient_that_is_not_finite_is_refused_and_said_once() -> None:
    learner = OnlineLearner("gru", 4)
    for x, y in waves(8):
        learner.learn_one(x, y, "k")
    net, before = learner._core.net, {n: t.clone() for n, t in tensors(learner).items()}
    whole = net.online.gradient
    net.online.gradient = lambda memory, dy: {n: g * math.nan for n, g in whole(memory, dy).items()}  # type: ignore[misc]
    with pytest.warns(TidegateNotice) as told:
        learner.learn_one(x, y, "k")
    assert [str(w.message) for w in told] == [
        "step 9 was refused: its gradient is not finite or above 1000. Weights and state stay as they were; `refused` "
        "counts such steps, and listeners hear of each. After 3 in a row states start anew, with half the learning "
        "rate."
    ]
    assert told[0].filename == __file__
    learner.learn_one(x, y, "k")
    assert learner.refused == 2
    assert learner._core.net.adam.steps == 8
    assert all(torch.equal(t, before[n]) for n, t in tensors(learner).items())
    net.online.gradient = whole
    assert not torch.equal(tensors(learner.learn_one(x, y, "k"))["head.bias"], before["head.bias"])


@pytest.mark.filterwarnings("ignore::tidegate.TidegateNotice")
def test_a_key_whose_memory_is_broken_begins_anew() -> None:
    learner = OnlineLearner("gru", 4)
    for x, y in waves(8):
        learner.learn_one(x, y)
    influence = [t for n, t in learner._core.tracks.kept[None].memory.tensors().items() if n.startswith("influence")]
    influence[0].fill_(math.nan)  # no step of ours does this
    learner.learn_one(x, y)
    assert learner.refused == 1
    learner.learn_one(x, y)
    assert learner.refused == 1


def test_a_drift_raises_the_alarm() -> None:
    learner, heard, at = OnlineLearner(learning_rate=0.003, rule="truncated:1,2"), list[Event](), list[int]()
    learner.listeners.append(heard.append)
    for step, (x, y) in enumerate(waves(1200), start=1):
        learner.learn_one(x, y if step < 900 else -3 * y)
        at += [step] if learner.drift else []
    assert at
    assert 900 < at[0] < 960
    assert learner.drifts == len(at)
    assert [e.step for e in heard] == at


def test_an_alarm_is_told_of_its_own_step_alone() -> None:
    learner = OnlineLearner("gru", 4, delay=1)
    for _ in range(40):
        learner.learn_one([1.0], 5.0, "a")
    learner._core.test = learner._core.test._replace(excess=1e9)
    assert learner.learn_one([1.0], 5.0, "a").drift
    assert not learner.learn_one([1.0], None, "b").drift
    assert learner.drifts == 1


def test_without_the_alarm_nothing_is_watched() -> None:
    learner = OnlineLearner(drift=0)
    for step, (x, y) in enumerate(waves(200)):
        learner.learn_one(x, y if step < 100 else 100 * y)
    assert learner.drifts == 0


# What is refused


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (
            lambda: OnlineLearner(task="ranking"),
            "The option 'task' must be regression or classification, got 'ranking'. Give for example "
            "regression.",
        ),
        (lambda: OnlineLearner(hiden_size=3), "There is no option 'hiden_size'. Did you mean 'hidden_size'?"),
        (
            lambda: OnlineLearner(rule="bptt"),
            "rule must give a gradient at each step, got bptt: use for example RTRL(), SnAp() or "
            "TruncatedBPTT(1, 16)",
        ),
        (
            lambda: OnlineLearner().predict_proba_one([1.0]),
            "a regression has no probabilities: use predict_one, or task='classification'",
        ),
        (
            lambda: OnlineLearner().learn_one([1.0], None, 1.5),
            "a key must be text, a whole number of 64 bits or None, got 1.5",
        ),
        (
            lambda: OnlineLearner().learn_one([1.0], None, 2**63),
            "a key must be text, a whole number of 64 bits or None, got 9223372036854775808",
        ),
        (
            lambda: OnlineLearner().learn_many([[1.0]] * 3, keys=["a", float("nan"), "b"]),
            "keys must have a value for each row, got nan for row 1",
        ),
        (
            lambda: OnlineLearner().learn_many([[1.0]] * 3, keys=["a", "b", ""]),
            "keys must have a value for each row, got '' for row 2",
        ),
        (
            lambda: OnlineLearner().learn_one([1.0], "high"),
            "y must be a number between -1e+100 and 1e+100, got 'high': give None where it is missing, or "
            "task='classification' for labels",
        ),
        (
            lambda: OnlineLearner().learn_one([1.0], math.inf),
            "y must be a number between -1e+100 and 1e+100, got inf: give None where it is missing, or "
            "task='classification' for labels",
        ),
        (
            lambda: OnlineLearner(task="classification", max_classes=2).learn_many([[1.0]] * 3, "abc"),
            "label 'c' is one more than max_classes=2: give a larger number",
        ),
        (
            lambda: OnlineLearner(task="classification").learn_one([1.0], [2]),
            "y must be a label: text, a finite number or a truth value, got [2]: give None where it is missing",
        ),
        *(
            (
                lambda y=y: OnlineLearner(task="classification").learn_one([1.0], y),
                f"y must be a label: text, a finite number or a truth value, got {y!r:.80}: give None where it is "
                "missing",
            )
            for y in (math.inf, "\ud800", 10**30, np.array([1, 2]))
        ),
        (
            lambda: OnlineLearner().learn_one(1.0),
            "x must be a mapping from features to numbers, or a sequence of numbers, got float",
        ),
        (
            lambda: OnlineLearner().learn_many([[1.0], [2.0]], [1.0]),
            "y must have one value for each of the 2 rows of X, got 1",
        ),
        (
            lambda: OnlineLearner().learn_many(3),
            "X must be a frame, an array [N, I] or a list of steps, got int",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(act: Any, text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        act()
    assert str(caught.value) == text


def test_an_error_leaves_everything_as_it_was() -> None:
    learner = OnlineLearner("gru", 4, max_features=5)
    for x, y in waves(5):
        learner.learn_one(x, y)
    before = learner.snapshot()
    for x, y in (({"a": 1.0, "b": math.inf}, 1.0), ({"a": 1.0, "new": "text"}, 1.0), ({"a": 1.0}, "text")):
        with pytest.raises(ArgumentError):
            learner.learn_one(x, y)
    assert learner.snapshot() == before


def test_its_face(golden: Any) -> None:
    learner = OnlineLearner("lstm", delay=2, learning_rate=0.01)
    new = repr(learner)
    for n, (x, y) in enumerate(waves(9)):
        learner.learn_one(x, y, n % 2)
    labels = OnlineLearner(task="classification").learn_one({f"feature {n}": 1.0 for n in range(30)}, "a")
    golden("online_learner.txt", "\n\n".join([new, repr(learner), repr(labels)]) + "\n")
    assert isinstance(tg.OnlineLearner(), OnlineLearner)
