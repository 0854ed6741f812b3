"""Diagnosis of gradients through time in a net, for some data."""

from tidegate.gradients.diagnosis.cosines import Cosine
from tidegate.gradients.diagnosis.diagnose import Diagnosis, diagnose
from tidegate.gradients.diagnosis.lags import Lags
from tidegate.gradients.diagnosis.saturation import Activation
from tidegate.gradients.diagnosis.spectrum import Range, Spectrum
from tidegate.gradients.diagnosis.units import Units

__all__ = ["Activation", "Cosine", "Diagnosis", "Lags", "Range", "Spectrum", "Units", "diagnose"]
