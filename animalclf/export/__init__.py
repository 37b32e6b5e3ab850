"""A trained model for use elsewhere: ONNX from the pixels to calibrated probabilities, safetensors, a model card."""
