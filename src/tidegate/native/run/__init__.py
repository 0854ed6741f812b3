"""Compiled kernels at work: cache, arguments, row order, threads and working memory."""
