"""Errors of predictions made before their labels, counted by hand."""

import json

import pytest

from tidegate.online import Judge


def test_numbers_beside_the_last_number() -> None:
    judge = Judge("regression")
    for prediction, label in ((0.0, 5.0), (4.0, 6.0), (7.0, None), (7.0, 9.0)):
        judge.judge(prediction, label)
    assert judge.count == 2  # the first has no last number before it, the third no label
    assert judge.error == pytest.approx((2.0 + 2.0) / 2)
    assert judge.naive == pytest.approx((1.0 + 3.0) / 2)
    assert judge.last(None) == 9.0
    assert judge.last("other") is None


def test_labels_beside_the_most_frequent_one() -> None:
    judge = Judge("classification")
    for prediction, label in ((None, "a"), ("a", "b"), ("b", "b"), ("b", "b"), ("a", "a")):
        judge.judge(prediction, label)
    assert judge.count == 4
    assert judge.error == pytest.approx(1 / 4)
    assert judge.naive == pytest.approx(3 / 4)  # a, a (one each, the first met), b, b


def test_a_late_label_scores_the_prediction_of_its_own_step_and_what_was_known_then() -> None:
    judge = Judge("regression", delay=2)
    labels = [None, None, 10.0, 20.0, 30.0, 40.0, 50.0]
    for step, label in enumerate(labels):
        judge.judge(100.0 + step, label)
    # labels 10 ... 50 are those of steps 0 ... 4; when 3 and 4 were predicted, 10 and 20 had come
    assert judge.count == 2
    assert judge.error == pytest.approx(((103 - 40) + (104 - 50)) / 2)
    assert judge.naive == pytest.approx(((40 - 10) + (50 - 20)) / 2)


def test_each_key_has_its_own_last_number_and_the_oldest_is_forgotten() -> None:
    judge = Judge("regression", max_keys=2)
    for key, label in (("a", 1.0), ("b", 100.0), ("a", 2.0), ("b", 104.0)):
        judge.judge(0.0, label, key)
    assert judge.naive == pytest.approx((1.0 + 4.0) / 2)
    judge.judge(0.0, 5.0, "c")
    assert judge.last("a") is None
    assert judge.last("b") == 104.0


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_it_goes_on_after_a_restart(task: str) -> None:
    labels = [3.0, 4.0, None, 6.0, 5.0, 4.0, 4.0, 9.0] if task == "regression" else list("abbacbba")
    whole, first = Judge(task, 2, 5), Judge(task, 2, 5)
    for step, label in enumerate(labels):
        if step == 4:
            first = Judge.from_json(json.loads(json.dumps(first.to_json())))
        for judge in (whole, first):
            judge.judge(labels[-1 - step], label, step % 2)
    assert first.to_json() == whole.to_json()
    assert whole.count
