"""The page of a diagnosis: what was found stands on it, and every name as text."""

import copy
from typing import Any

import pytest

from tidegate import report
from tidegate.report.html import escape

HOSTILE = "<script>alert(1)</script>\"'&amp;\x00"
CURVE = {"median": [2.0, 1.0, 0.5], "low": [1.0, 0.5, 0.0], "high": [4.0, 2.0, 1.0]}
LAGS = CURVE | {"layer": None, "state": "all states", "label": "all states"}
LAGS |= {"memory": 2, "memory_percent": None, "growth": 0.5, "flow": "steady"}
DATA: dict[str, Any] = {
    "sentences": ["It neither vanishes nor explodes.", "Effective memory.", "No unit is dead.", "Cosine."],
    "cells": ["lstm"],
    "steps": 3,
    "rows": 5,
    "loss": "a made up loss",
    "origins": 5,
    "lags": [LAGS, LAGS | {"layer": 0, "state": "c", "label": "cell state c"}],
    "spectra": [
        {
            "layer": 0,
            "states": ["h", "c"],
            "samples": 7,
            "singular_values": CURVE,
            "moduli": CURVE,
            "radius": (0.9, 0.8, 1.1),
            "eigenvalues": [(0.5, 0.5), (0.5, -0.5)],
            "growth": -0.25,
        }
    ],
    "activations": [
        {
            "layer": 0,
            "name": "f",
            "label": "forget gate f",
            "kind": "sigmoid",
            "keeps": ["c"],
            "enters": ["q"],
            "ends": (0.0, 1.0),
            "counts": [1, 2, 3],
            "low": 0.1,
            "high": 0.4,
            "unit_low": [0.1, 0.1],
            "unit_high": [0.4, 0.4],
            "time_constants": [3.0, None],
        }
    ],
    "units": [
        {
            "layer": 0,
            "state": "c",
            "label": "cell state c",
            "deviations": [0.5, 0.0],
            "still": [1],
            "no_gradient": [0, 1],
        }
    ],
    "cosines": [{"rule": "truncated:1,1", "cosine": 0.5, "ratio": None, "by_parameter": {"l0.f.x": None}}],
}


def page(**changes: Any) -> str:
    return report.diagnosis_page(DATA | changes, title="Diagnosis of a run", subtitle="lstm", footer="by hand")


def test_what_was_found_stands_on_the_page() -> None:
    html = page()
    for said in (
        *DATA["sentences"],
        "a made up loss, looked back from 5 places in 5 x 3 steps (rows x time)",
        "&gt; 2",  # until 1 % is left
        "Its spectral radius is 0.9 (from 0.8 to 1.1)",
        "a small change of the state is multiplied by 0.7788 a step (mean logarithm -0.2500)",
        "forget gate f (keeps c, lets into q)",
        "One step: lstm",
        '<td class="number">1</td><td>0, 1</td>',
        "truncated:1,1",
        "0.5000",
    ):
        assert said in html
    assert html.count("<svg") == 7
    assert "<script" not in html


def test_layers_are_told_apart_where_there_are_several() -> None:
    assert "layer 1" not in page()
    html = page(cells=["lstm", "gru"])
    assert "layer 1: cell state c" in html
    assert "One step of layer 1: lstm" in html


def test_what_is_not_there_is_not_shown() -> None:
    nothing = LAGS | {"median": [0.0], "low": [0.0], "high": [0.0], "flow": "none", "growth": None, "memory": None}
    spectrum = DATA["spectra"][0] | {"growth": None}
    html = page(lags=[nothing], activations=[], cosines=[], spectra=[spectrum])
    assert html.count("<svg") == 4
    assert "a small change of the state dies out altogether" in html
    assert "Saturation" not in html
    assert "Rules" not in html


@pytest.mark.parametrize(
    ("tone", "flow"), [("good", "steady"), ("mixed", "vanishing"), ("bad", "exploding"), ("bad", "none")]
)
def test_the_tone_is_that_of_the_verdict(tone: str, flow: str) -> None:
    assert f'class="banner {tone}"' in page(lags=[LAGS | {"flow": flow}])


def hostile(data: Any) -> Any:
    """Every string made hostile, but for those that choose a tone."""
    if isinstance(data, dict):
        return {k if k in KEYS else HOSTILE: v if k == "flow" else hostile(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [hostile(v) for v in data]
    return HOSTILE if isinstance(data, str) else data


KEYS = {*DATA, *LAGS, *DATA["spectra"][0], *DATA["activations"][0], *DATA["units"][0], *DATA["cosines"][0]}


def test_every_name_is_shown_as_text() -> None:
    before = copy.deepcopy(DATA)
    html = report.diagnosis_page(hostile(DATA), title=HOSTILE, subtitle=HOSTILE, footer=HOSTILE)
    assert "<script" not in html
    assert html.count(escape(HOSTILE)) > 20
    assert before == DATA
