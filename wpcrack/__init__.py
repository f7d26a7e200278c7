"""Road crack detection from image-level labels (WP-CrackNet, arXiv 2510.17566).

import wpcrack

model = wpcrack.load_model("runs/first")
probability = wpcrack.predict(model, image)  # (H, W, 3) uint8 -> (H, W) float32 in [0, 1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wpcrack.api import load_model as load_model
    from wpcrack.api import predict as predict

    __version__: str

__all__ = ["__version__", "load_model", "predict"]


def __getattr__(name: str) -> object:
    """Import what is asked for at its first use (PEP 562): torch takes seconds.

    >>> import wpcrack
    >>> wpcrack.__version__.count(".")
    2
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("wpcrack")
    if name in __all__:
        from wpcrack import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
