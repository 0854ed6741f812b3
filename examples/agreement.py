"""What the second direction is for: a later word decides an earlier one.

A sentence is a sequence of words with one marker. A word before the marker must agree with it: its ending, 0 or 1, is
that of the marker, which comes later. Read from left to right, the ending is a guess; read from both ends, it is known.

    python examples/agreement.py
"""

import torch
from torch import Tensor, nn

import tidegate as tg

WORDS, MARKERS, T, ROWS, HIDDEN = 6, 2, 8, 64, 16


def sentences(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words `[T, rows]` as indices, where the word that agrees stands in each row, and the ending that is right."""
    words = torch.randint(0, WORDS, (T, rows))
    ending = torch.randint(0, MARKERS, (rows,))
    place = torch.randint(0, T - 1, (rows,))
    words[torch.randint_like(place, T) % (T - 1 - place) + place + 1, torch.arange(rows)] = WORDS + ending
    return words, place, ending


class Tagger(nn.Module):
    """An ending for each word of a sentence."""

    def __init__(self, *, bidirectional: bool) -> None:
        super().__init__()
        self.layer = tg.Recurrent("lstm", WORDS + MARKERS, HIDDEN, bidirectional=bidirectional)
        self.head = nn.Linear(self.layer.output_size, MARKERS)

    def forward(self, words: Tensor) -> Tensor:
        y, _ = self.layer(words)
        logits: Tensor = self.head(y)
        return logits


def accuracy(*, bidirectional: bool, updates: int = 150, seed: int = 0) -> float:
    """The share of right endings in sentences that were never seen, after so many updates."""
    torch.manual_seed(seed)
    tagger = Tagger(bidirectional=bidirectional)
    optimiser = torch.optim.Adam(tagger.parameters(), lr=0.02)
    for _ in range(updates):
        words, place, ending = sentences(ROWS)
        loss = nn.functional.cross_entropy(tagger(words)[place, torch.arange(ROWS)], ending)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    words, place, ending = sentences(2000)
    with torch.no_grad():
        guessed = tagger(words)[place, torch.arange(2000)].argmax(-1)
    return float((guessed == ending).double().mean())


if __name__ == "__main__":
    print(f"one direction:  {accuracy(bidirectional=False):.1%}")
    print(f"two directions: {accuracy(bidirectional=True):.1%}")
