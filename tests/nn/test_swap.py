"""tg.swap: public kinds of model, written against torch, train on unchanged; what is replaced and what is not."""

import copy
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import tidegate as tg
from tidegate.errors import ArgumentError


class Tagger(nn.Module):
    """Words in, a tag for each out: embedding, two layers in both directions on packed sequences, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6, padding_idx=0)
        self.encoder = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(16, 5)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True)
        scores: Tensor = self.tags(y)
        return scores


def tagger_loss(model: nn.Module) -> Tensor:
    lengths = torch.tensor([7, 3, 5, 1])
    words = torch.randint(1, 20, (4, 7)) * (torch.arange(7) < lengths[:, None])
    scores = model(words, lengths)
    wanted = torch.where(words > 0, words % 5, -100)
    return nn.functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=-100)


class EncoderDecoder(nn.Module):
    """One sequence into another: the encoder's states begin the decoder, which is fed one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(12, 5), nn.Embedding(12, 5)
        self.encoder, self.decoder = nn.LSTM(5, 9, num_layers=2), nn.LSTM(5, 9, num_layers=2)
        self.words = nn.Linear(9, 12)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.source(source))
        scores = []
        for word in target:
            y, state = self.decoder(self.target(word)[None], state)
            scores.append(self.words(y[0]))
        return torch.stack(scores)


def translation_loss(model: nn.Module) -> Tensor:
    source = torch.randint(0, 12, (6, 3))
    scores = model(source, torch.cat([torch.zeros(1, 3, dtype=torch.int64), source[:-1]]))
    return nn.functional.cross_entropy(scores.flatten(0, 1), source.flatten())


class Acoustic(nn.Module):
    """Frames in, log probabilities of symbols out, for CTC: LSTM with projection, then a GRU, in a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.ReLU())
        self.layers = nn.ModuleList([nn.LSTM(6, 8, bidirectional=True), nn.GRU(16, 7)])
        self.symbols = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.frames(x.permute(1, 2, 0)).permute(2, 0, 1)
        for layer in self.layers:
            y, _ = layer(y)
        return self.symbols(y).log_softmax(-1)


def ctc_loss(model: nn.Module) -> Tensor:
    x, wanted = torch.randn(11, 3, 4), torch.randint(1, 5, (3, 3))
    return nn.functional.ctc_loss(model(x), wanted, torch.tensor([11, 9, 10]), torch.tensor([3, 2, 1]))


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor], list[str]]] = {
    "tagger": (Tagger, tagger_loss, ["encoder"]),
    "encoder-decoder": (EncoderDecoder, translation_loss, ["encoder", "decoder"]),
    "ctc": (Acoustic, ctc_loss, ["layers.0", "layers.1"]),
}


def trained(model: nn.Module, loss_of: Callable[[nn.Module], Tensor], swap: bool) -> tuple[list[float], list[str]]:
    """The losses of ten steps; the optimiser is older than the swap, which comes after two steps."""
    optimiser, losses, names = torch.optim.Adam(model.parameters(), lr=0.01), [], []
    for k in range(10):
        torch.manual_seed(7)
        if swap and k == 2:
            names = tg.swap(model)
        optimiser.zero_grad()
        loss = loss_of(model)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return losses, names


@pytest.mark.parametrize("kind", KINDS)
def test_trains_unchanged(kind: str) -> None:
    make, loss_of, names = KINDS[kind]
    model = make()
    twin = copy.deepcopy(model)
    ours, replaced = trained(twin, loss_of, swap=True)
    theirs, _ = trained(model, loss_of, swap=False)
    assert replaced == names
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours[:2] == theirs[:2]
    assert theirs[-1] < 0.97 * theirs[0]
    assert all(type(twin.get_submodule(n)).__module__ == "tidegate.nn.torch_modules.modules" for n in names)
    assert list(twin.state_dict()) == list(model.state_dict())


def test_parameters_hooks_and_modes_stay() -> None:
    model = Tagger().eval()
    parameters, seen = dict(model.named_parameters()), []
    model.encoder.register_forward_hook(lambda *_: seen.append("hook"))
    module = model.encoder
    tg.swap(model)
    assert model.encoder is module
    assert not model.encoder.training
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert next(parameters[n] for n in parameters if "weight_ih_l0" in n) is model.encoder.weight_ih_l0
    tagger_loss(model)
    assert seen == ["hook"]


@pytest.mark.parametrize(("theirs", "ours"), [(nn.LSTM, tg.LSTM), (nn.GRU, tg.GRU), (nn.RNN, tg.RNN)])
def test_a_module_by_itself_is_named_nothing(theirs: Any, ours: Any) -> None:
    module = theirs(3, 5)
    assert tg.swap(module) == [""]
    assert type(module) is ours
    assert tg.swap(module) == []


class Own(nn.LSTM):
    pass


def test_subclasses_and_others_are_left_alone() -> None:
    model = nn.ModuleDict(
        {"own": Own(3, 5), "cell": nn.LSTMCell(3, 5), "ours": tg.GRU(3, 5), "linear": nn.Linear(3, 5)}
    )
    kinds = [type(m) for m in model.modules()]
    assert tg.swap(model) == []
    assert [type(m) for m in model.modules()] == kinds


def test_nested_modules_are_found_and_shared_ones_once() -> None:
    shared = nn.GRU(4, 4)
    model = nn.ModuleDict(
        {
            "a": nn.Sequential(nn.ModuleList([nn.RNN(4, 4), shared])),
            "b": shared,
            "c": nn.ModuleDict({"d": nn.LSTM(4, 4)}),
        }
    )
    assert tg.swap(model) == ["a.0.0", "a.0.1", "c.d"]
    assert model["b"] is model.get_submodule("a.0.1") is shared
    assert type(shared) is tg.GRU


def test_nothing_recurrent_nothing_replaced() -> None:
    assert tg.swap(nn.Linear(3, 5)) == []


# Back to torch's own


@pytest.mark.parametrize("kind", KINDS)
def test_unswap_is_the_inverse(kind: str) -> None:
    make, loss_of, names = KINDS[kind]
    model = make()
    parameters, twin = dict(model.named_parameters()), copy.deepcopy(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    tg.swap(model)
    loss_of(model).backward()
    assert tg.unswap(model) == names
    assert tg.unswap(model) == []
    assert [type(m) for m in model.modules()] == [type(m) for m in twin.modules()]
    assert all(vars(a).keys() == vars(b).keys() for a, b in zip(model.modules(), twin.modules(), strict=True))
    assert all(p is parameters[name] for name, p in model.named_parameters())
    for net in (model, twin):
        torch.manual_seed(3)
        loss_of(net)
    assert same_bits(model, twin)
    optimiser.step()
    assert not same_bits(model, twin)


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    found = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(p, q) for (name, p), (other, q) in found)


def test_layers_made_as_ours_become_torchs() -> None:
    model = nn.ModuleDict({"a": tg.LSTM(3, 5, forget_bias=1.0), "b": tg.GRU(3, 5), "c": tg.Recurrent("gru", 3, 5)})
    seen: list[str] = []
    model["a"].register_forward_hook(lambda *_: seen.append("hook"))
    x = torch.randn(6, 4, 3)
    y = model["a"](x)[0]
    assert tg.unswap(model) == ["a", "b"]
    assert [type(m) for m in model.values()] == [nn.LSTM, nn.GRU, tg.Recurrent]
    torch.testing.assert_close(model["a"](x)[0], y)
    assert seen == ["hook", "hook"]
    restored = torch.load(buffer_of(model["b"]), weights_only=False)
    assert type(restored) is nn.GRU


def buffer_of(module: nn.Module) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return buffer


# What cannot convert our layers says so

REFUSAL = (
    "torch.jit and torch.onnx cannot convert tidegate layers, since they do not see native kernels: tg.unswap(model) "
    "turns each tg.LSTM, tg.GRU and tg.RNN into torch's own module, which they convert; for other layers use "
    "torch.export.export(model, args)"
)
CONVERTERS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "jit.trace": lambda model, x: torch.jit.trace(model, (x,)),
    "jit.script": lambda model, _: torch.jit.script(model),
    "onnx.export": lambda model, x: torch.onnx.export(model, (x,), io.BytesIO(), dynamo=False),
}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: tg.LSTM(3, 5),
    "Recurrent": lambda: tg.Recurrent("lstm", 3, 5),
    "Stack": lambda: tg.Stack(tg.Recurrent("lstm", 3, 5)),
    "inside": lambda: nn.Sequential(tg.GRU(3, 5)),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, about these converters
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("converter", CONVERTERS)
def test_converters_that_cannot_see_kernels(converter: str, layer: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        CONVERTERS[converter](LAYERS[layer](), torch.randn(6, 4, 3))
    assert str(caught.value) == REFUSAL


@pytest.mark.kernels
@pytest.mark.parametrize("layer", ["LSTM", "Recurrent"])
def test_the_onnx_exporter_of_programs(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with pytest.raises(Exception, match=re.escape(REFUSAL)):
        torch.export.export(LAYERS[layer](), (torch.randn(6, 4, 3),))


@pytest.mark.filterwarnings("ignore")  # torch's own, about these converters
def test_an_unswapped_model_is_traced_and_scripted() -> None:
    model, x = Output(tg.GRU(3, 5)), torch.randn(6, 4, 3)
    y = model(x).detach()
    assert tg.unswap(model) == ["layer"]
    for made in (torch.jit.trace(model, (x,)), torch.jit.script(model)):
        torch.testing.assert_close(made(x), y)


class Output(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def test_an_unswapped_model_is_exported_to_onnx() -> None:
    pytest.importorskip("onnxscript")
    model = nn.Sequential(tg.LSTM(3, 5))
    with pytest.raises(Exception, match=re.escape(REFUSAL)):
        torch.onnx.export(model, (torch.randn(6, 4, 3),))
    tg.unswap(model)
    assert torch.onnx.export(model, (torch.randn(6, 4, 3),)) is not None
