"""examples/agreement.py: one direction guesses, two know."""

import torch

from from_file import module_of

agreement = module_of("examples/agreement.py")


def test_words_agree_with_a_marker_that_comes_later() -> None:
    words, place, ending = agreement.sentences(50)
    for row, (where, right) in enumerate(zip(place.tolist(), ending.tolist(), strict=True)):
        markers = (words[:, row] >= agreement.WORDS).nonzero().flatten().tolist()
        assert len(markers) == 1
        assert markers[0] > where
        assert words[markers[0], row] == agreement.WORDS + right
    assert 10 < int(ending.sum()) < 40
    assert words.shape == (agreement.T, 50)
    assert words.dtype == torch.long


def test_one_direction_guesses_and_two_know() -> None:
    assert 0.45 < agreement.accuracy(bidirectional=False) < 0.55
    assert agreement.accuracy(bidirectional=True) > 0.98
