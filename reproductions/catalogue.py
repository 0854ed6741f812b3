"""Every experiment, in the order of the page. A new one is a file and a row here."""

from __future__ import annotations

from collections.abc import Mapping

from reproductions.adding import ADDING
from reproductions.chaotic import CHAOTIC
from reproductions.chorales import CHORALES
from reproductions.continual_reber import CONTINUAL_REBER
from reproductions.continual_reber_2000 import CONTINUAL_REBER_2000
from reproductions.copy_memory import COPY_MEMORY
from reproductions.distractors import DISTRACTORS
from reproductions.embedded_reber import EMBEDDED_REBER
from reproductions.experiment import Experiment
from reproductions.gradients_agree import GRADIENTS_AGREE
from reproductions.two_lags import TWO_LAGS

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
