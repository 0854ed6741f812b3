"""Files that are written whole and checked when read, and safe text. Knows bytes and JSON, no class."""

from tidegate.files.atomic import write_atomic
from tidegate.files.model_folder import ModelFolder, read_model, reading, write_model
from tidegate.files.text import from_json, printable, spreadsheet_text, to_json

__all__ = [
    "ModelFolder",
    "from_json",
    "printable",
    "read_model",
    "reading",
    "spreadsheet_text",
    "to_json",
    "write_atomic",
    "write_model",
]
