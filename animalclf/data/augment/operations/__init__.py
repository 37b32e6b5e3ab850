"""Augmentation operations, one per file; each registers itself."""
