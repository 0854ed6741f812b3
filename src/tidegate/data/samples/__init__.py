"""Small real series that ship with Tidegate, each with a page on where it is from and its terms."""

from importlib import resources
from pathlib import Path

from tidegate.errors import ArgumentError


def sample(name: str) -> Path:
    """The path of a shipped CSV file, for example `sample("co2_mauna_loa")`: columns month, co2."""
    folder = Path(str(resources.files(__name__)))
    known = sorted(path.stem for path in folder.glob("*.csv"))
    if name not in known:
        raise ArgumentError(f"There is no sample {name!r}. The samples are: {', '.join(known)}.")
    return folder / f"{name}.csv"
