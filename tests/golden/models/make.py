"""Save models with this version of Tidegate, with inputs and the outputs they must give for ever.

`python tests/golden/models/make.py` writes a folder named after the version; what is there already is never touched:
a release adds its folder, and each later version has to load it.
"""

import json
from pathlib import Path

import torch

import tidegate as tg

HERE = Path(__file__).parent


def models() -> dict[str, torch.nn.Module]:
    """Something of everything that is in the files."""
    torch.manual_seed(1)
    peephole = tg.Recurrent(
        "lstm_peephole", 3, 4, num_layers=2, bidirectional=True, merge="sum", learn_initial_state=True
    )
    projection = tg.Recurrent(tg.cells.get("lstm_projection")(forget_bias=2.0), 3, 4, P=2, batch_first=True)
    around = tg.Stack(tg.Recurrent("gru", 4, 4, num_layers=2), tg.Recurrent("elman", 4, 4), highway=True)
    return {
        "peephole": peephole.double(),
        "projection": projection,
        "stack": tg.Stack(tg.Recurrent("lstm", 3, 4, learn_initial_state=True), around),
        "torch-lstm": tg.LSTM(3, 4, proj_size=2, bidirectional=True),
        "torch-gru": tg.GRU(3, 4, 2, bias=False),
        "torch-rnn": tg.RNN(3, 4, nonlinearity="relu", batch_first=True),
    }


def main() -> None:
    """Write each model, and beside it expected.json."""
    for name, model in models().items():
        folder = HERE / tg.__version__ / name
        if folder.exists():
            print(f"{folder} is there, and stays")  # noqa: T201
            continue
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn_like(p) / 2)
            x = torch.randn(5, 2, 3, dtype=next(model.parameters()).dtype)
            y, _ = model(x)
        tg.save(model, folder)
        expected = {"input": x.tolist(), "output": y.tolist(), "names": list(model.state_dict())}
        (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
