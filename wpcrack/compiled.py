"""torch.compile of the encoders, tried out before the training depends on it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from wpcrack.errors import first_line
from wpcrack.networks import Networks
from wpcrack.networks.encoder import ImageEncoder

Backend = str | Callable[..., object]

SHOWN = 200
"""Characters of a compiler's message that are shown."""


def compile_encoders(
    nets: Networks, shape: tuple[int, int, int, int], backend: Backend = "inductor"
) -> str | None:
    """Compiles both encoders in place, or leaves both as they are.

    What is compiled is the call: weights keep their names, copies of the networks are not compiled.
    Each encoder runs once forward and backward, so that a compiler that is missing is known now
    and the time of compiling is not taken from the training.

    Args:
        nets: in the modes and memory order of the training.
        shape: (B, 3, H, W) of the images of a forward pass.
        backend: of torch.compile.

    Returns:
        Why nothing was compiled, in one line; None: both are compiled.
    """
    encoders = nets.classifier.encoder, nets.reconstructor.encoder
    try:
        for encoder in encoders:
            encoder.compile(backend=backend)
            try_out(encoder, shape)
    except Exception as error:  # a compiler may fail in any way; the encoders work without it
        for encoder in encoders:
            encoder._compiled_call_impl = None  # what Module.compile sets
            encoder.zero_grad(set_to_none=True)
        reason = first_line(error)[:SHOWN]
        return f"train.compile=true has no effect, encoders run as they are ({reason})"
    return None


def try_out(encoder: ImageEncoder, shape: tuple[int, int, int, int]) -> None:
    """One forward and backward pass that leaves nothing behind."""
    weight = next(encoder.parameters())
    image = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    statistics = [(buffer, buffer.clone()) for buffer in encoder.buffers()]
    with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
        encoder(image).deep.sum().backward()
    encoder.zero_grad(set_to_none=True)
    for buffer, value in statistics:
        buffer.copy_(value)
