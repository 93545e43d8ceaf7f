"""Kernels: arrays and scalars in, arrays and scalars out. No classes, no I/O, no logging."""
