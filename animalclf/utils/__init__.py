"""Helpers without knowledge of images or training: files by URL, S3 errors, the console, malloc."""
