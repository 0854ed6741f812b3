"""Native kernels: from a cell's equations to machine code. Torch is not known here."""
