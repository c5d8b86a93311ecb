"""Fixed position embeddings."""

import math

import torch
from torch import nn


class CmlmSinusoidalPositionalEmbedding(nn.Embedding):
    """Fixed sinusoids (Vaswani et al. 2017, section 3.5), sines in the first half of the vector, cosines in the second."""

    def __init__(self, num_positions: int, embedding_dim: int):
        super().__init__(num_positions, embedding_dim, _freeze=True)

    def create_weight(self) -> torch.Tensor:
        num_positions, dim = self.weight.shape
        num_sines = (dim + 1) // 2
        frequencies = torch.exp(torch.arange(num_sines) * (-2 * math.log(10000.0) / dim))
        angles = torch.arange(num_positions)[:, None] * frequencies  # (positions, sines)
        return torch.cat([angles.sin(), angles.cos()[:, : dim - num_sines]], dim=1).to(
            self.weight.dtype
        )
