"""The judgement of a forecaster: cuts of the series, calibration of the intervals, scores and the verdict."""
