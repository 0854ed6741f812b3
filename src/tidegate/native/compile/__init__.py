"""From graphs to LLVM IR: plans of kernels, and the code emitted for them."""
