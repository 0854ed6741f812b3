"""Published experiments, run again: ours beside the figure of the paper, for several seeds.

`experiment.py` says what an experiment is, `catalogue.py` lists them, `run.py` runs seeds in parallel and keeps what is
finished, `page.py` writes docs/experiments.md. Adding one takes a file and a row of the catalogue.
"""
