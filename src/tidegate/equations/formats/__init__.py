"""A cell's graph written out: as text, JSON, LaTeX and diagrams."""
