"""What is learned in ``characters.py``: the standard library's help texts, and a small GPT.

Nothing is downloaded: `pydoc_data.topics` is what ``help("with")`` and its like print, about half a
million characters. It differs between versions of Python, so the outputs say by its SHA-256 what
was read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pydoc_data.topics import topics
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

CONTEXT: Final = 64
VALIDATION_SHARE: Final = 0.1


@dataclass(frozen=True)
class Text:
    """A text as numbers, split by position.

    Attributes:
        alphabet: the characters that occur, in order; a character's number is its place here.
        train: the first part, ``(n,)``.
        validation: what follows, ``(m,)``.
        sha256: of the whole text in UTF-8.
    """

    alphabet: str
    train: Tensor
    validation: Tensor
    sha256: str


@cache
def load() -> Text:
    """Return the help texts, one after the other in the order of their names."""
    whole = "\n\n".join(topics[name].strip() for name in sorted(topics))
    alphabet = "".join(sorted(set(whole)))
    number = {character: i for i, character in enumerate(alphabet)}
    numbers = torch.tensor([number[character] for character in whole])
    train = round(len(whole) * (1 - VALIDATION_SHARE))
    return Text(
        alphabet=alphabet,
        train=numbers[:train],
        validation=numbers[train:],
        sha256=hashlib.sha256(whole.encode()).hexdigest(),
    )


def windows(text: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is read and what is to be predicted, each ``(len(starts), CONTEXT)``."""
    places = starts[:, None] + torch.arange(CONTEXT)
    return text[places], text[places + 1]


class Block(nn.Module):
    """Causal self-attention and a perceptron, each normalised before and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.before_perceptron = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x``, ``(batch, length, width)``."""
        batch, length, width = x.shape
        split = (batch, length, 3, self.heads, width // self.heads)
        parts = self.queries_keys_values(self.before_attention(x)).reshape(split)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (batch, heads, length, width / heads)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attended(mixed.transpose(1, 2).reshape(x.shape))
        out: Tensor = x + self.perceptron(self.before_perceptron(x))
        return out


class GPT(nn.Module):
    """A character-level GPT.

    Args:
        characters: length of the alphabet.
        width: of the residual stream.
        layers: blocks.
        heads: attention heads in a block.
    """

    def __init__(self, characters: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, width)
        self.position = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.last = nn.LayerNorm(width)
        self.scores = nn.Linear(width, characters)
        for embedding in (self.character, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of the next character, ``(batch, length, characters)``."""
        x = self.character(x) + self.position.weight[: x.shape[1]]
        scores: Tensor = self.scores(self.last(self.blocks(x)))
        return scores
