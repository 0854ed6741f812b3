"""The words of the field: what they are called, the labels made of them, and the cells that they find."""

import re
from collections import Counter

import pytest

from tidegate.cells import CELLS
from tidegate.cells.glossary import glossary, label, plain, term_of, terms, terms_of
from tidegate.cells.search import find, meant
from tidegate.equations import cell, linear, sigmoid, tanh
from tidegate.errors import ArgumentError

CHINESE = re.compile("[\u4e00-\u9fff]")
PAIRS = {
    "relevance gate": ("reset gate", "重置门"),
    "inner state": ("cell state", "细胞状态"),
    "outer state": ("hidden state", "隐状态"),
    "keep gate": ("forget gate", "遗忘门"),
    "cell input": ("candidate", "候选值"),
    "pre-activation": ("net input", "净输入"),
    "carousel": ("constant error carousel", "恒定误差传送带"),
    "CIFG": ("coupled gates", "耦合门"),
    "BPTT": ("backpropagation through time", "随时间反向传播"),
    "TBPTT": ("truncated backpropagation through time", "截断随时间反向传播"),
    "RTRL": ("real-time recurrent learning", "实时循环学习"),
    "clipping": ("gradient clipping", "梯度裁剪"),
    "seq2seq": ("encoder-decoder", "编码器-解码器"),
    "BRNN": ("bidirectional", "双向"),
    "LSTM": ("long short-term memory", "长短期记忆"),
    "GRU": ("gated recurrent unit", "门控循环单元"),
    "vanishing gradients": ("vanishing gradient", "梯度消失"),
    "强制教学": ("teacher forcing", "教师强制"),
}


@cell(states="h c", source="a test: comments that are terms, that are not, and none")
def remarked(x, h, c):
    """A cell to be found by its title."""
    k = sigmoid(linear("k", x, h))  # keep gate, of the old cell
    u = tanh(linear("u", x))  # temperature outside: in kelvin
    c = k * c + (1 - k) * u
    h = tanh(c)  # hidden state
    return h, c


# the table


def test_there_are_enough_words() -> None:
    assert len(terms()) == sum(map(len, glossary().values())) >= 70


def test_no_word_means_two_things() -> None:
    twice = [word for word, n in Counter(plain(w) for t in terms() for w in t.words).items() if n > 1]
    assert not twice


@pytest.mark.parametrize("term", terms(), ids=lambda term: term.english)
def test_every_term_is_whole(term) -> None:
    assert term.english
    assert not CHINESE.search(term.english + term.symbol + term.meaning)
    assert CHINESE.search(term.chinese)
    assert re.fullmatch(r"[A-Z0-9].*[^.]\.", term.meaning)
    assert not re.search(r"[|`]", "".join((*term.words, term.symbol, term.meaning)))
    assert set(term.cells) <= set(CELLS)


@pytest.mark.parametrize("word", PAIRS)
def test_synonyms(word: str) -> None:
    found = term_of(word)
    assert found is not None
    assert (found.english, found.chinese) == PAIRS[word]


@pytest.mark.parametrize(
    "word", ["Sigmoid函数", "sigmoid 函数", "S型函数", "编码器解码器", "编码器-解码器", "Encoder Decoder"]
)
def test_spaces_and_dashes_do_not_matter(word: str) -> None:
    assert [t.english for t in meant(word)] == [
        "encoder-decoder" if re.search("码|coder", word) else "logistic function"
    ]


def test_the_longest_word_counts() -> None:
    assert [
        t.english for t in map(term_of, ("cell", "cell input", "cell state of a block", "Forget-Gate bias")) if t
    ] == [
        "cell state",
        "candidate",
        "cell state",
        "forget bias",
    ]
    assert term_of("cells") is None
    assert term_of("") is None


def test_terms_of_a_cell_come_from_comments_options_and_the_table() -> None:
    assert [t.english for t in terms_of(remarked)] == ["hidden state", "forget gate"]
    assert [t.english for t in terms_of(CELLS["slstm"])] == [
        "cell state",
        "output",
        "input gate",
        "forget gate",
        "output gate",
        "candidate",
        "net input",
        "exponential gating",
        "stabiliser",
        "normaliser",
        "head",
        "long short-term memory",
    ]


# labels


@pytest.mark.parametrize(
    ("name", "english", "chinese"),
    [
        ("k", "forget gate k", "遗忘门 k"),
        ("k.net", "forget gate k, net input", "遗忘门 k，净输入"),
        ("u", "temperature outside u", "temperature outside u"),
        ("c", "c", "c"),
        ("h", "hidden state h", "隐状态 h"),
    ],
)
def test_labels(name: str, english: str, chinese: str) -> None:
    assert label(remarked.graph, name) == english
    assert label(remarked.graph, name, chinese=True) == chinese


def test_a_label_of_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        label(remarked.graph, "z")
    assert str(caught.value) == "cell 'remarked' has no value 'z' to label; it has k.net, k, u.net, u, c, h"


@pytest.mark.parametrize("name", CELLS)
def test_every_value_has_a_label(name: str) -> None:
    graph = CELLS[name].graph
    for value in graph.named:
        words = label(graph, value)
        assert re.fullmatch(rf"\S.* {re.escape(value.removesuffix('.net'))}(, net input)?", words), words
    assert len({label(graph, value) for value in graph.named}) == len(graph.named)


# the search


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("relevance gate", ["gru", "gru_reset_after", "gru_layer_norm", "sru"]),
        ("相关门", ["gru", "gru_reset_after", "gru_layer_norm", "sru"]),
        ("重置", ["gru", "gru_reset_after", "gru_layer_norm", "sru"]),
        (
            "Peephole",
            [
                "lstm_peephole",
                "lstm_coupled",
                "lstm_projection",
                "lstm_full_gate_recurrence",
                "lstm_coupled_peephole",
            ],
        ),
        ("窥视孔", ["lstm_peephole", "lstm_projection", "lstm_full_gate_recurrence"]),
        ("carousel", ["lstm_1997"]),
        ("recurrent_gain", ["lstm_layer_norm"]),
        ("layer normalization", ["lstm_layer_norm", "gru_layer_norm"]),
        ("orvieto", ["lru"]),
        ("arXiv:2410.01201", ["min_gru", "min_lstm"]),
        ("stabilised", ["slstm"]),
        ("eigenvalue", ["lru"]),
        ("min", ["mgu", "min_gru", "min_lstm", "lru"]),
        ("MGU", ["mgu"]),
        ("by its title", ["remarked"]),
    ],
)
def test_words_find_cells(word: str, names: list[str]) -> None:
    assert list(find(word, {**CELLS, "remarked": remarked})) == names


def test_where_a_word_was_found() -> None:
    assert find("gru", CELLS)["gru"] == ["name", "gated recurrent unit 门控循环单元"]
    assert find("forget", CELLS)["lstm_coupled"] == ["option forget_bias", "f: forget gate; the input gate is 1 - f"]
    assert find("title", {"remarked": remarked})["remarked"] == ["title"]
    assert find("Li et al", CELLS)["indrnn"] == ["source"]


def test_every_cell_is_found_by_each_of_its_terms_in_both_languages() -> None:
    for name, made in CELLS.items():
        for term in terms_of(made):
            for word in term.words:
                assert term in meant(word)
                assert name in find(word, CELLS), word


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (
            "forgot gate",
            "no cell matches 'forgot gate': did you mean forget gate or forget gate bias? `tidegate cells` lists "
            "them all, and docs/glossary.md the words",
        ),
        ("zzz", "no cell matches 'zzz': `tidegate cells` lists them all, and docs/glossary.md the words"),
        (
            "BPTT",
            "no cell matches 'BPTT': backpropagation through time (随时间反向传播) is in the glossary, but no cell has "
            "it",
        ),
        (" - ", "a search takes a word, such as 'forget gate', got ' - '"),
    ],
)
def test_words_that_find_nothing(word: str, text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        find(word, CELLS)
    assert str(caught.value) == text
