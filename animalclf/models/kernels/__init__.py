"""CUDA kernels in Triton. They are a package of their own because all modules of `animalclf.models` are imported on
every machine, and Triton exists only beside PyTorch's CUDA build on Linux."""
