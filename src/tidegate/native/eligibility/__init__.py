"""Kernels of eligibility traces: their form, their code, and how they are called."""
