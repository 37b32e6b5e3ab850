"""The demo set: images of animals drawn by code, in the layout of a Kaggle competition."""
