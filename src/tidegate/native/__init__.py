"""Native kernels: compiles a cell's equations to machine code. Independent of torch."""
