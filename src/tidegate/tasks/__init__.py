"""Tasks: data in, a trained and judged model out; one package each."""
