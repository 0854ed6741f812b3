"""Every experiment, in the order of the page. A new one is a file and a row here."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.experiments.adding import ADDING
from tidegate.experiments.chaotic import CHAOTIC
from tidegate.experiments.chorales import CHORALES
from tidegate.experiments.continual_reber import CONTINUAL_REBER
from tidegate.experiments.continual_reber_2000 import CONTINUAL_REBER_2000
from tidegate.experiments.copy_memory import COPY_MEMORY
from tidegate.experiments.distractors import DISTRACTORS
from tidegate.experiments.embedded_reber import EMBEDDED_REBER
from tidegate.experiments.experiment import Experiment
from tidegate.experiments.gradients_agree import GRADIENTS_AGREE
from tidegate.experiments.two_lags import TWO_LAGS

EXPERIMENTS: Mapping[str, Experiment] = {
    e.name: e
    for e in (
        GRADIENTS_AGREE,
        EMBEDDED_REBER,
        ADDING,
        DISTRACTORS,
        CONTINUAL_REBER,
        CONTINUAL_REBER_2000,
        COPY_MEMORY,
        TWO_LAGS,
        CHAOTIC,
        CHORALES,
    )
}
