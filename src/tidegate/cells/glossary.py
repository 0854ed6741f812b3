"""The terms of the field in English and Chinese: synonyms, symbols and meanings.

docs/glossary.md, `tidegate cells --search` and the labels of plots all come from this table.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tidegate.equations import Cell, Graph
from tidegate.errors import ArgumentError

_CHINESE = "[\u4e00-\u9fff]"  # a letter


@dataclass(frozen=True)
class Term:
    """A term, its symbol in formulas and its meaning; `cells` have the term though no comment in them says so."""

    english: str
    chinese: str
    meaning: str
    symbol: str = ""
    synonyms: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All names of the term, in both languages."""
        return (self.english, self.chinese, *self.synonyms)


GLOSSARY: Mapping[str, tuple[Term, ...]] = MappingProxyType(
    {
        "States and gates": (
            Term(
                "state",
                "状态",
                "What a cell carries from one step to the next: its only knowledge of the past.",
                synonyms=("recurrent state", "memory", "记忆"),
            ),
            Term(
                "hidden state",
                "隐状态",
                "The state that other layers read and that feeds back into the gates at the next step.",
                "h",
                ("outer state", "hidden units", "隐藏状态", "外部状态"),
            ),
            Term(
                "cell state",
                "细胞状态",
                "The internal state of an LSTM, changed only through its gates.",
                "c",
                ("cell", "inner state", "internal state", "memory cell", "单元状态", "记忆单元", "内部状态"),
            ),
            Term("output", "输出", "What a cell passes to the layer above at each step.", "y", ("block output",)),
            Term(
                "gate",
                "门",
                "A value between 0 and 1 for each unit that multiplies another value.",
                synonyms=("gating", "门控"),
            ),
            Term(
                "input gate",
                "输入门",
                "Controls how much of the candidate is written into the cell state.",
                "i",
                ("write gate", "写入门"),
            ),
            Term(
                "forget gate",
                "遗忘门",
                "Controls how much of the old state is kept: 1 keeps everything, 0 forgets it; reversed in an MGU.",
                "f",
                ("keep gate", "保持门"),
            ),
            Term(
                "output gate",
                "输出门",
                "Controls how much of the cell state is shown as the hidden state.",
                "o",
                ("read gate", "读出门"),
            ),
            Term(
                "update gate",
                "更新门",
                "The gate of a GRU that mixes the old state of a unit with the candidate.",
                "z",
            ),
            Term(
                "reset gate",
                "重置门",
                "Controls how much of the old state the candidate of a GRU reads; in an SRU, the mix of cell state and "
                "input in the output.",
                "r",
                ("relevance gate", "相关门", "复位门"),
            ),
            Term(
                "candidate",
                "候选值",
                "The new content that a step proposes, before gates decide how much of it is written.",
                "g, n, z",
                ("candidate state", "cell input", "block input", "new gate", "候选状态", "候选激活"),
            ),
            Term(
                "net input",
                "净输入",
                "The sum of products and bias that an activation function is applied to.",
                synonyms=("pre-activation", "预激活"),
            ),
            Term(
                "peephole",
                "窥视孔连接",
                "A weight per unit through which a gate reads the cell state of its own unit.",
                "p",
                ("peepholes", "peephole connection", "窥孔连接"),
                ("lstm_peephole", "lstm_projection", "lstm_full_gate_recurrence"),
            ),
            Term(
                "constant error carousel",
                "恒定误差传送带",
                "A cell state that feeds back to itself with weight 1, so that errors flow back through it unchanged.",
                synonyms=("carousel", "error carousel", "CEC", "常误差传送带"),
                cells=("lstm_1997",),
            ),
            Term(
                "coupled gates",
                "耦合门",
                "The input gate is 1 minus the forget gate: as much is written as is forgotten.",
                synonyms=("CIFG", "coupled input and forget gate", "耦合输入遗忘门"),
                cells=("lstm_coupled",),
            ),
            Term(
                "full gate recurrence",
                "全门循环",
                "Each gate also reads all gates of the previous step.",
                synonyms=("FGR", "gate recurrence"),
                cells=("lstm_full_gate_recurrence",),
            ),
            Term(
                "projection",
                "投影",
                "A matrix that makes the output and the recurrent state smaller than the cell state.",
                synonyms=("recurrent projection", "projection layer", "LSTMP", "投影层", "循环投影层"),
            ),
            Term(
                "exponential gating",
                "指数门控",
                "Gates with the exponential instead of the logistic function, so that a later input can outweigh all "
                "earlier ones.",
                synonyms=("exponential gate", "指数门"),
                cells=("slstm",),
            ),
            Term(
                "stabiliser",
                "稳定项",
                "The running maximum of the gates' exponents, subtracted from them so that nothing overflows.",
                "m",
                ("stabilizer", "stabiliser state", "稳定器"),
            ),
            Term(
                "normaliser",
                "归一化状态",
                "The sum of the weights of the inputs in the cell state; the output is divided by it.",
                "n",
                ("normalizer", "normaliser state", "归一化器"),
            ),
            Term(
                "head",
                "头",
                "A group of units that read only the old states of their own group.",
                synonyms=("heads", "block-diagonal recurrence", "多头"),
            ),
        ),
        "Kinds of cells": (
            Term(
                "recurrent neural network",
                "循环神经网络",
                "A network that reads a sequence step by step with the same weights and carries a state along.",
                synonyms=("RNN", "recurrent network", "递归神经网络"),
            ),
            Term(
                "simple recurrent network",
                "简单循环网络",
                "One product of input and old hidden state, and an activation function; no gates.",
                synonyms=("SRN", "Elman network", "vanilla RNN", "埃尔曼网络", "Elman 网络"),
                cells=("elman", "elman_relu", "irnn"),
            ),
            Term(
                "long short-term memory",
                "长短期记忆",
                "A cell with an internal state that gates write, keep and read.",
                synonyms=("LSTM", "长短期记忆网络", "长短时记忆"),
                cells=(
                    "lstm_1997",
                    "lstm",
                    "lstm_peephole",
                    "lstm_coupled",
                    "lstm_projection",
                    "lstm_full_gate_recurrence",
                    "lstm_layer_norm",
                    "lstm_multiplicative",
                    "slstm",
                ),
            ),
            Term(
                "multiplicative LSTM",
                "乘法长短期记忆",
                "An LSTM in which each input chooses its own transition of the hidden state.",
                synonyms=("mLSTM", "乘法 LSTM"),
                cells=("lstm_multiplicative",),
            ),
            Term(
                "gated recurrent unit",
                "门控循环单元",
                "A cell of one state with an update gate and a reset gate.",
                synonyms=("GRU", "门控递归单元"),
                cells=("gru", "gru_reset_after", "gru_layer_norm"),
            ),
            Term(
                "minimal gated unit",
                "最小门控单元",
                "A GRU with one gate as both update gate and reset gate.",
                synonyms=("MGU",),
                cells=("mgu",),
            ),
            Term(
                "simple recurrent unit",
                "简单循环单元",
                "A cell whose products read only the input, so that all of them are computed before the recurrence.",
                synonyms=("SRU",),
                cells=("sru",),
            ),
            Term(
                "independently recurrent network",
                "独立循环神经网络",
                "Each unit feeds back only to itself, through one weight.",
                synonyms=("IndRNN", "independently recurrent neural network"),
                cells=("indrnn",),
            ),
            Term(
                "linear recurrent unit",
                "线性循环单元",
                "A linear recurrence with complex eigenvalues that lie within the unit circle by construction.",
                synonyms=("LRU",),
                cells=("lru",),
            ),
            Term(
                "linear recurrence",
                "线性递推",
                "The new state is a linear function of the old one, so that steps can be computed in parallel.",
                synonyms=("linear RNN", "state space model", "线性循环", "状态空间模型"),
                cells=("min_gru", "min_lstm", "lru"),
            ),
            Term(
                "element-wise recurrence",
                "逐元素循环",
                "No matrix between old and new states: each unit depends only on itself.",
                synonyms=("diagonal recurrence", "elementwise recurrence", "对角循环"),
                cells=("indrnn", "sru", "min_gru", "min_lstm", "lru"),
            ),
            Term(
                "eigenvalue",
                "特征值",
                "The factor of a mode of a linear recurrence at each step; its modulus says how fast the mode decays.",
                "λ",
                ("本征值",),
                ("lru",),
            ),
            Term(
                "highway connection",
                "高速连接",
                "A gate mixes the result of a layer with its input.",
                synonyms=("highway", "高速通路"),
                cells=("sru",),
            ),
            Term(
                "layer normalisation",
                "层归一化",
                "Each row is normalised to mean 0 and variance 1 over its units, then scaled and shifted by weights.",
                synonyms=("layer normalization", "layer norm", "LayerNorm", "层标准化"),
                cells=("lstm_layer_norm", "gru_layer_norm"),
            ),
        ),
        "Weights and how they start": (
            Term("weight", "权重", "A number that training changes.", "W, U", ("parameter", "参数", "权值")),
            Term("bias", "偏置", "A weight added to a net input.", "b", ("bias term", "偏置项")),
            Term(
                "recurrent weights",
                "循环权重",
                "The matrix that multiplies the old hidden state.",
                "U",
                ("recurrent matrix", "hidden-to-hidden weights", "循环矩阵"),
            ),
            Term(
                "forget bias",
                "遗忘门偏置",
                "The initial bias of the forget gate; with 1 or more an untrained cell remembers.",
                "b_f",
                ("forget gate bias", "遗忘偏置"),
            ),
            Term(
                "chrono initialisation",
                "时间尺度初始化",
                "Gate biases drawn so that units start with memories of all lengths up to the longest expected.",
                synonyms=("chrono initialization", "chrono 初始化"),
                cells=("janet",),
            ),
            Term(
                "identity initialisation",
                "单位矩阵初始化",
                "The recurrent matrix starts as the identity, so that the state is kept until training changes it.",
                synonyms=("identity initialization", "IRNN"),
                cells=("irnn",),
            ),
            Term(
                "orthogonal initialisation",
                "正交初始化",
                "The recurrent matrix starts orthogonal: it preserves the norm of a vector.",
                synonyms=("orthogonal initialization",),
            ),
            Term(
                "spectral radius",
                "谱半径",
                "The largest modulus among the eigenvalues of the recurrent matrix.",
                "ρ",
            ),
        ),
        "Functions and sizes": (
            Term(
                "activation function",
                "激活函数",
                "The element-wise function of a net input.",
                synonyms=("nonlinearity", "squashing function", "非线性函数", "挤压函数"),
            ),
            Term(
                "logistic function",
                "逻辑斯谛函数",
                "1 / (1 + exp(-v)), from 0 to 1; the usual function of gates.",
                "σ",
                ("sigmoid", "logistic sigmoid", "S 型函数", "sigmoid 函数"),
            ),
            Term(
                "hyperbolic tangent",
                "双曲正切",
                "From -1 to 1, odd, with derivative 1 at 0.",
                "tanh",
                ("双曲正切函数",),
            ),
            Term(
                "rectified linear unit",
                "修正线性单元",
                "The maximum of a value and 0.",
                "ReLU",
                ("rectifier", "relu", "线性整流函数", "线性整流单元"),
                ("elman_relu", "irnn", "indrnn"),
            ),
            Term(
                "hidden size", "隐藏层大小", "The number of units of a layer.", "H", ("number of units", "隐藏单元数")
            ),
            Term("time step", "时间步", "One element of a sequence, and the computation for it.", "t", ("时刻",)),
            Term("sequence length", "序列长度", "The number of time steps of a sequence.", "T"),
            Term("batch", "批", "Sequences that are computed together.", "B", ("mini-batch", "批次", "小批量")),
            Term(
                "padding",
                "填充",
                "Values that fill short sequences of a batch up to the longest one.",
                synonyms=("补齐",),
            ),
        ),
        "Layers and models": (
            Term(
                "bidirectional",
                "双向",
                "Two cells read the sequence, one from each end; the output of a step combines both.",
                synonyms=("bidirectional RNN", "BRNN", "双向循环神经网络"),
            ),
            Term(
                "stacked layers",
                "堆叠层",
                "Each layer reads the outputs of the one below.",
                synonyms=("deep RNN", "multilayer RNN", "多层循环网络", "深层循环网络"),
            ),
            Term(
                "encoder-decoder",
                "编码器-解码器",
                "One network reads a sequence into its state, another generates a sequence from it.",
                synonyms=("sequence to sequence", "seq2seq", "序列到序列"),
            ),
            Term(
                "attention",
                "注意力机制",
                "A weighted mean over earlier states, with weights computed from the present state.",
                synonyms=("attention mechanism", "注意力"),
            ),
            Term(
                "initial state",
                "初始状态",
                "The state before the first step; zero, given, or learned.",
                "h_0",
                ("learned initial state", "可学习初始状态"),
            ),
            Term(
                "state reset",
                "状态重置",
                "Return to the initial state where a new sequence starts within a stream.",
                synonyms=("reset",),
            ),
            Term("dropout", "随机失活", "In training, random elements are set to 0.", synonyms=("丢弃法",)),
        ),
        "Learning": (
            Term(
                "backpropagation through time",
                "随时间反向传播",
                "Gradients of an unrolled network, computed from the last step back to the first.",
                synonyms=("BPTT", "沿时间反向传播", "时间反向传播"),
            ),
            Term(
                "truncated backpropagation through time",
                "截断随时间反向传播",
                "The state is carried on, and gradients flow back a limited number of steps.",
                synonyms=("truncated BPTT", "TBPTT", "截断反向传播"),
            ),
            Term(
                "real-time recurrent learning",
                "实时循环学习",
                "The exact gradient carried forward with the state, so that nothing of the past is stored.",
                synonyms=("RTRL", "实时递归学习"),
            ),
            Term(
                "unrolling",
                "展开",
                "Writing the steps of a sequence out as a network without loops.",
                synonyms=("unfolding", "unfolding in time", "按时间展开"),
            ),
            Term(
                "Jacobian",
                "雅可比矩阵",
                "The derivatives of the new states with respect to the old ones.",
                "J",
                ("Jacobian matrix", "雅克比矩阵"),
            ),
            Term(
                "vanishing gradient",
                "梯度消失",
                "Products of many Jacobians shrink, so that early steps get no gradient.",
                synonyms=("vanishing gradients", "vanishing error"),
            ),
            Term(
                "exploding gradient",
                "梯度爆炸",
                "Products of many Jacobians grow, so that one update can destroy what was learned.",
                synonyms=("exploding gradients",),
            ),
            Term(
                "gradient clipping",
                "梯度裁剪",
                "A gradient beyond a limit is scaled down, or its elements are clipped.",
                synonyms=("clipping", "norm clipping", "梯度截断"),
            ),
            Term(
                "teacher forcing",
                "教师强制",
                "In training, the next step reads the true last value instead of the predicted one.",
                synonyms=("强制教学",),
            ),
            Term(
                "free running",
                "自由运行",
                "The next step reads the model's own prediction.",
                synonyms=("closed loop", "autoregressive generation", "自回归生成", "闭环"),
            ),
            Term(
                "scheduled sampling",
                "计划采样",
                "During training, true last values are replaced by predicted ones more and more often.",
            ),
            Term(
                "exposure bias",
                "暴露偏差",
                "A model trained only on true values has never seen its own errors.",
            ),
            Term(
                "early stopping",
                "早停",
                "Training stops when the error on validation data no longer falls.",
                synonyms=("提前停止",),
            ),
            Term(
                "forecast horizon",
                "预测步长",
                "How many steps ahead are forecast.",
                synonyms=("horizon", "预测范围"),
            ),
        ),
    }
)
TERMS = tuple(term for group in GLOSSARY.values() for term in group)


def plain(text: str) -> str:
    """Normalise text for comparison: lower case, single spaces, none next to Chinese, no dashes."""
    return re.sub(rf"(?<={_CHINESE}) | (?={_CHINESE})", "", re.sub(r"[-_\s]+", " ", text.casefold()).strip())


_BY_WORD = {plain(word): term for term in TERMS for word in term.words}


def term_of(text: str) -> Term | None:
    """The longest term that a text equals or begins with."""
    words = plain(text).split()
    beginnings = (" ".join(words[:n]) for n in range(len(words), 0, -1))
    return next((_BY_WORD[b] for b in beginnings if b in _BY_WORD), None)


def terms_of(cell: Cell) -> tuple[Term, ...]:
    """The terms of a cell: from its comments and options, and those that list the cell."""
    said = {term_of(head(v.legend)) for v in cell.graph.named.values() if v.legend}
    said |= {term_of(option) for option in cell.options}
    return tuple(t for t in TERMS if t in said or cell.name in t.cells)


def head(legend: str) -> str:
    """The part of a comment that names its value, without further explanation."""
    return re.split(r"[,:;(]", legend, maxsplit=1)[0].strip()


def label(graph: Graph, name: str, chinese: bool = False) -> str:
    """The label of a named value in plots: `forget gate f`, or in Chinese `遗忘门 f`.

    A comment whose first words are a term, or a synonym of one, gives that term; any other comment gives those words.
    A value without a comment keeps its bare name. Raises ArgumentError for a name that the graph does not have.
    """
    if name not in graph.named:
        known = ", ".join(graph.named)
        raise ArgumentError(f"cell {graph.name!r} has no value {name!r} to label; it has {known}")
    base = name.removesuffix(".net")
    called = _called(graph, base, chinese)
    if base == name:
        return called
    return f"{called}，净输入" if chinese else f"{called}, net input"


def _called(graph: Graph, name: str, chinese: bool) -> str:
    value = graph.named.get(name)
    words = head(value.legend) if value is not None and value.legend else ""
    term = term_of(words) if words else None
    if term is not None and plain(words) in map(plain, term.words):
        words = term.chinese if chinese else term.english
    return f"{words} {name}".strip()
