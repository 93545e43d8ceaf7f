"""Kernels for NVIDIA GPUs; nothing imports a module of this folder before a device is asked for."""
