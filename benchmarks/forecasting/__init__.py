"""How good the forecaster is on real series, beside statistical forecasters refitted at every origin.

    python -m benchmarks.forecasting CASE... [--quick] [--only NAME] [--json FILE] [--page docs/forecasting.md]

Statistical forecasters need the extra `stats`. The data are read from `--data FOLDER`, or downloaded by pip.
"""
