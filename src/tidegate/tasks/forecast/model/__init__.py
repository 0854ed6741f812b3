"""The model of a forecaster: scales and inputs of a panel, the net, and how both run over time."""
