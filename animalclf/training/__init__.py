"""Training one model: the loop in plain PyTorch, Ray Train at its edge."""
