"""Labels: which are probably wrong, and which images to label next."""
