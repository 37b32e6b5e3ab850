"""Heat maps of images as files: `explain`."""
