"""Running compiled kernels: cache, arguments, row order, threads and working memory."""
