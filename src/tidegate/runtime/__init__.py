"""The only way from torch's tensors to native kernels: what can run, bound calls and their cache."""
