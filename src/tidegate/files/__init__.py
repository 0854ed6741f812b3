"""Files that are never half written, and never believed without a look. Knows bytes and JSON, no class."""

from tidegate.files.atomic import write_atomic
from tidegate.files.model_folder import ModelFolder, read_model, write_model

__all__ = ["ModelFolder", "read_model", "write_atomic", "write_model"]
