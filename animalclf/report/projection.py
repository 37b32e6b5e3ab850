"""Features on a plane: t-SNE (van der Maaten and Hinton 2008), begun from the principal components. Plain PyTorch.

Near images of the map are alike to the model; the axes, and distances between far groups, mean nothing. The exact
method takes the square of the number of images, so that of more than MAX_EXACT only a sample is placed by it, and each
other image in the mean of its nearest ones of the sample.
"""

from __future__ import annotations

import numpy as np
import torch

MAX_EXACT = 1000  # images: 4 s on one core
COMPONENTS = 50
MAX_PERPLEXITY = 30.0  # effective number of neighbours of an image; of few images a third of them
STEPS, EARLY_STEPS, EXAGGERATION = 500, 200, 12.0
NEIGHBOURS = 5


def project(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Positions float32 (N, 2), 0 to 1, of features float (N, F). `seed` draws the sample; the same features and seed
    have the same map."""
    count = len(features)
    sample = np.arange(count)
    if count > MAX_EXACT:
        sample = np.sort(np.random.default_rng(seed).permutation(count)[:MAX_EXACT])
    components = torch.from_numpy(principal_components(features, sample))
    exact = _tsne(components[sample])
    positions = exact
    if count > MAX_EXACT:
        positions = torch.cat([_beside(part, components[sample], exact) for part in components.split(4096)])
        positions[sample] = exact
    positions -= positions.amin(0)
    positions /= positions.amax().clamp_min(1e-9)
    return positions.numpy()


def principal_components(features: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """At most COMPONENTS of them, float32 (N, K), those of the rows `sample`; signs are fixed."""
    centred = features.astype(np.float64) - features[sample].astype(np.float64).mean(0)
    _, _, vectors = np.linalg.svd(centred[sample], full_matrices=False)
    vectors = vectors[:COMPONENTS]
    vectors *= np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)])[:, None]
    return (centred @ vectors.T).astype(np.float32)


def _tsne(components: torch.Tensor) -> torch.Tensor:
    """Positions float32 (N, 2) by gradient descent, with the settings of scikit-learn's TSNE."""
    count = len(components)
    start = torch.zeros(count, 2)
    start[:, : components.shape[1]] = components[:, :2]
    if count < 5:  # too few for neighbourhoods
        return start
    joint = _affinities(components)
    positions = start / start[:, 0].std().clamp_min(1e-9) * 1e-4
    rate, update, gains = max(count / EXAGGERATION / 4, 50.0), torch.zeros_like(positions), torch.ones_like(positions)
    for step in range(STEPS):
        factor, momentum = (EXAGGERATION, 0.5) if step < EARLY_STEPS else (1.0, 0.8)
        near = 1 / (1 + _squared_distances(positions, positions))
        near.fill_diagonal_(0)
        forces = (factor * joint - near / near.sum()) * near
        gradient = 4 * (forces.sum(1, keepdim=True) * positions - forces @ positions)
        gains = torch.where(update * gradient < 0, gains + 0.2, gains * 0.8).clamp_min(0.01)
        update = momentum * update - rate * gains * gradient
        positions = positions + update
    return positions


def _affinities(components: torch.Tensor) -> torch.Tensor:
    """Joint probabilities (N, N), whose rows have the perplexity, by bisection of their precisions."""
    count = len(components)
    distances = _squared_distances(components, components).fill_diagonal_(torch.inf)
    distances = distances / distances[distances.isfinite()].mean().clamp_min(1e-12)
    entropy = float(np.log(min(MAX_PERPLEXITY, (count - 1) / 3)))
    low, high = torch.full((count, 1), -10.0), torch.full((count, 1), 20.0)  # log of the precision
    for _ in range(40):
        middle = (low + high) / 2
        log_rows = (-distances * middle.exp()).log_softmax(1)
        rows = log_rows.exp()
        too_wide = -(rows * log_rows.clamp_min(-100)).sum(1, keepdim=True) > entropy
        low, high = torch.where(too_wide, middle, low), torch.where(too_wide, high, middle)
    return ((rows + rows.T) / (2 * count)).clamp_min(1e-12)


def _beside(components: torch.Tensor, sample: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Positions (M, 2) of other images: the mean of their nearest ones in `sample`, weighted by closeness."""
    nearest = _squared_distances(components, sample).topk(NEIGHBOURS, largest=False)
    weights = 1 / (nearest.values + 1e-6 * nearest.values.mean() + 1e-12)
    return (weights[:, :, None] * positions[nearest.indices]).sum(1) / weights.sum(1, keepdim=True)


def _squared_distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    products = first @ second.T
    return ((first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * products).clamp_min(0)
