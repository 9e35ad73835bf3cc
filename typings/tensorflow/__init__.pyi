"""TensorFlow without types, for pyright."""

from typing import Any

def __getattr__(name: str) -> Any: ...
