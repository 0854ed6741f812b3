"""Kernels for eligibility traces: form, code and calls."""
