"""Before a training or a comparison: what it will take. Nothing outside a temporary folder is written."""
