"""Augmentation operations, one a file; each registers itself."""
