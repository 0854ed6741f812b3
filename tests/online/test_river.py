"""River's own checks and evaluation, where river is installed; what it asks for is listed in `online/river.py`."""

import random
from typing import Any

import pytest

from online_streams import colours, waves
from tidegate.online import OnlineLearner

river = pytest.importorskip("river", reason="river is not installed")
from river import base, checks, compose, evaluate, metrics, preprocessing  # noqa: E402

SMALL = {"hidden_size": 4, "rule": "truncated:1,1", "learning_rate": 0.003}
pytestmark = pytest.mark.filterwarnings("ignore::tidegate.TidegateNotice")


def of(task: str) -> OnlineLearner:
    return OnlineLearner(task=task, **SMALL)


def test_river_knows_what_it_predicts() -> None:
    for task, kind, other in (
        ("regression", base.Regressor, base.Classifier),
        ("classification", base.Classifier, base.Regressor),
    ):
        for learner in (of(task), OnlineLearner().restore(of(task).snapshot())):
            assert isinstance(learner, kind)
            assert not isinstance(learner, other)
            pipeline = preprocessing.StandardScaler() | learner
            assert isinstance(pipeline, kind)


NEEDS_MORE = {
    "check_mutate_can_be_idempotent",  # river's own way to change options of a model that has learned: there is none
    "check_init_has_default_params_for_tests",  # asks for what only river's tests use
}


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_rivers_own_checks(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    stream = [({**x, **{name: rng.gauss(0, 1) for name in "uvw"}}, y) for x, y in waves(60)]
    stream = stream if task == "regression" else [(x, y > 5) for x, y in stream]
    monkeypatch.setattr(checks, "_yield_datasets", lambda model, scale=1: iter([stream * scale]))  # theirs need sklearn
    ran = set()
    for check in checks.yield_checks(of(task)):
        if check.__name__ not in NEEDS_MORE:
            check(of(task).clone())
            ran.add(check.__name__)
    assert len(ran) > 20


def test_a_pipeline_is_evaluated_and_predicts_as_the_learner_does() -> None:
    stream = list(waves(300))
    pipeline = compose.Pipeline(preprocessing.StandardScaler(), of("regression"))
    score = evaluate.progressive_val_score(iter(stream), pipeline, metrics.MAE())
    scaler, alone, error = preprocessing.StandardScaler(), of("regression"), 0.0
    for x, y in stream:
        error += abs(alone.predict_one(scaler.transform_one(x)) - y)
        scaler.learn_one(x)
        alone.learn_one(scaler.transform_one(x), y)
    assert score.get() == pytest.approx(error / len(stream), rel=1e-12)
    assert pipeline["OnlineRegressor"].snapshot() == alone.snapshot()


@pytest.mark.parametrize("metric", [metrics.Accuracy(), metrics.CrossEntropy()])
def test_a_classifier_is_evaluated_by_labels_and_by_probabilities(metric: Any) -> None:
    learner = OnlineLearner(task="classification", hidden_size=8, rule="truncated:1,2", learning_rate=0.01)
    score = evaluate.progressive_val_score(colours(600), learner, metric)
    assert score.get() > 0.6 if isinstance(metric, metrics.Accuracy) else score.get() < 1.0


def test_late_labels_of_river_are_its_own_affair() -> None:
    """River keeps the features until the label comes, and calls learn_one with both: delay=0 is right there."""
    score = evaluate.progressive_val_score(waves(60), of("regression"), metrics.MAE(), delay=3)
    assert score.get() > 0


def test_a_pipeline_is_cloned_with_new_options() -> None:
    learner = of("regression").learn_one([1.0], 2.0)
    fresh = compose.Pipeline(preprocessing.StandardScaler(), learner).clone()["OnlineRegressor"]
    assert (fresh.steps, repr(fresh)) == (0, repr(learner))
    assert learner.clone({"hidden_size": 7}).hidden_size == 7
    assert learner.clone(include_attributes=True).snapshot() == learner.snapshot()
