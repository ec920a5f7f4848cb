"""Muon: steps of equal length in all directions of a matrix.

The momentum of a matrix's gradient is replaced by the nearest orthogonal matrix, or nearly: its
singular vectors are kept, and each singular value comes near 1 (Jordan et al. 2024). Steps are
scaled by the matrix's shape so that their root mean square is that of AdamW's, and one learning
rate and one weight decay serve both (Liu et al. 2025, "Muon is scalable for LLM training").

A step is a function of the whole matrix and its momentum, in at least float32. Products of matrices
may be rounded differently by another build or processor, more often than what works value by value.
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # of s, s³ and s⁵: steepest at 0, and near 1 after ITERATIONS
ITERATIONS = 5  # takes singular values from 0.01 to 1, of the norm, to between 0.68 and 1.13
ADAMW_STEP = 0.2  # root mean square of AdamW's steps, over the rate: Liu et al. 2025, section 2.2
ROUNDS_MORE = 10  # times what works by value: 2 were seen, of a gradient of rank 1 on weights of 0
WORKING_MATRICES = 4  # of a matrix's size, at the most, that a step takes for a while


def step(
    values: Tensor, gradient: Tensor, momentum: Tensor, rate: float, beta: float, decay: float
) -> None:
    """Do a step on a matrix, in place, with its momentum. Decay is decoupled, as AdamW's is."""
    with torch.no_grad():
        momentum.mul_(beta).add_(gradient)
        ahead = torch.add(gradient, momentum, alpha=beta)  # Nesterov's
        values.mul_(1.0 - rate * decay)
        values.sub_(direction(ahead), alpha=rate)


def direction(momentum: Tensor) -> Tensor:
    """Return the step that a momentum makes at a rate of 1. It may be overwritten."""
    rows, columns = momentum.shape
    return orthogonalized(momentum).mul_(ADAMW_STEP * max(rows, columns) ** 0.5)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return nearly the orthogonal matrix that is nearest, by Newton and Schulz's iteration with a
    polynomial of degree 5. The matrix may be overwritten; one of zeros stays so."""
    norm = torch.linalg.vector_norm(matrix, dtype=torch.float64)
    x = matrix.div_(norm.clamp_min(torch.finfo(matrix.dtype).tiny))
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.mT
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        factor = torch.addmm(square, square, square, beta=third, alpha=fifth)
        x = torch.addmm(x, factor, x, beta=first)
    return x.mT if is_tall else x
