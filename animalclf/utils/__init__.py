"""Helpers that are not specific to images or training."""
