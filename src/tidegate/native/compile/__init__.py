"""From a graph to machine code: the plan of a kernel, and the code that LLVM compiles."""
