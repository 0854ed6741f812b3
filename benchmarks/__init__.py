"""How fast Tidegate is, beside whom, and by how much it misses what the machine can do.

`run` measures cases in turn with their peers and gives events; `lines` judges the rows; `page` writes
docs/performance.md. Only public layers are called, so what is measured is what a user gets.
"""
