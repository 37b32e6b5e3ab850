"""Perceptual hashes of thumbnails."""

from __future__ import annotations

import numpy as np

FREQUENCIES = 8  # of the cosine transform, per axis


def phashes(signatures: np.ndarray) -> list[str]:
    """Perceptual hashes of square thumbnails uint8 (N, S * S), 16 hex digits each: which of the 64 lowest frequencies
    are above their median."""
    side = round(signatures.shape[1] ** 0.5)
    wave = np.arange(FREQUENCIES)
    cosines = np.cos(np.pi * wave[:, None] * ((np.arange(side) + 0.5) / side)).astype(np.float32) / np.float32(side)
    norm = np.where(wave > 0, np.sqrt(2), 1)
    weight = (np.outer(norm, norm) * np.sqrt(np.hypot(wave[:, None], wave))).astype(np.float32)
    weighted = ((cosines @ signatures.reshape(-1, side, side).astype(np.float32) @ cosines.T) * weight).reshape(-1, 64)
    weighted /= np.linalg.norm(weighted, axis=1, keepdims=True) + 1
    bits = np.packbits(weighted > np.median(weighted, axis=1, keepdims=True), axis=1)
    return [row.tobytes().hex() for row in bits]
