"""Cartoon animals drawn by code, for the demo set: `scene.picture` draws one picture.

An animal is a function that puts ellipses, tapering limbs and smooth outlines on a picture through a pen. Its own units: its height is about 1, it
faces right, y points down, and it stands on y = 0 (butterfly and spider are centred on the origin, head up). All that varies (joints, proportions,
pose, markings) is drawn from the pen's generator.
"""
