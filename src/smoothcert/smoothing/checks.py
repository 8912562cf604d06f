"""Is the model a function of one draw? Asked once, on real inputs, before anything is counted.

A model whose answer for an image depends on the other images of its batch, on its place in the batch, or on
the moment, is not a base classifier in the sense of any theorem here, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.errors import ModelOutputError, SmoothcertError, UnsoundModel
from smoothcert.smoothing.network import Network, to_labels
from smoothcert.smoothing.noise import NamedDraws, Noise, Prepared
from smoothcert.smoothing.streams import Segment

_PLACE_TOLERANCE = (
    1e-3  # of the scores' size: rounding differs between rows of a matrix product, answers do not
)


def check_network(
    network: Network, noise: Noise, images: Sequence[Prepared], *, seed: int, batch: int
) -> None:
    """Refuse a network whose answer for a draw depends on anything but the draw.

    Args:
        network: what is to be certified.
        noise, images: real inputs, prepared; they are repeated with fresh draws to fill one batch.
        seed: of the run; the draws come from a stream of their own.
        batch: the fixed batch size of the run.

    Raises:
        UnsoundModel: the answers change when the call is repeated, when batch mates are exchanged, or when
            rows are moved.
    """
    names = [Segment(k % len(images), "check", k // len(images), 1) for k in range(batch)]
    noisy = np.concatenate([noise.noisy(images[name.example], seed, name) for name in names])
    reference = _first_outputs(network, noisy, names, seed)
    if not _equal(reference, _outputs(network, noisy, names, seed)):
        raise UnsoundModel(
            "a model that answers the same input in two ways",
            "draws could not be repeated, so a run could neither be resumed nor verified",
            "Remove the randomness (dropout outside nn.Dropout, say), or take it from named draws",
        )
    _check_mates(network, noisy, names, seed, reference)
    _check_places(network, noisy, names, seed, reference)


def _check_mates(
    network: Network, noisy: npt.NDArray[np.float32], names: list[Segment], seed: int, reference: Tensor
) -> None:
    """Exchange every other row for a brighter, mirrored copy; the rows that stay must not change at all."""
    for kept in (0, 1):
        changed = noisy.copy()
        others = np.arange(len(noisy)) % 2 != kept
        changed[others] = 1.0 - 0.5 * noisy[others][:, :, ::-1]
        if not _equal(reference[~others], _outputs(network, changed, names, seed)[~others]):
            raise UnsoundModel(
                "a model whose answer for one image depends on the other images of its batch",
                "smoothing needs a function of one image; batch statistics (batch normalisation in training "
                "mode, normalisation over the batch) void every certificate",
                "Use running statistics, or normalise each image by itself",
            )


def _check_places(
    network: Network, noisy: npt.NDArray[np.float32], names: list[Segment], seed: int, reference: Tensor
) -> None:
    """Reverse the batch: the answers must follow their rows, up to the rounding of a matrix product."""
    order = np.arange(len(noisy))[::-1].copy()
    moved = _outputs(network, np.ascontiguousarray(noisy[order]), [names[k] for k in order], seed)
    expected = reference[torch.from_numpy(order).to(reference.device)]
    if expected.is_floating_point():
        scale = float(torch.nan_to_num(expected.abs(), 0.0, 0.0, 0.0).max()) or 1.0
        same = torch.allclose(moved, expected, rtol=0.0, atol=_PLACE_TOLERANCE * scale, equal_nan=True)
    else:
        same = bool((to_labels(moved) == to_labels(expected)).all())
    if not same:
        raise UnsoundModel(
            "a model whose answer depends on an image's place in the batch",
            "smoothing needs a function of one image",
            "Make it treat every row alike",
        )


def _first_outputs(
    network: Network, noisy: npt.NDArray[np.float32], names: list[Segment], seed: int
) -> Tensor:
    """The first call of all: what goes wrong here is a model that does not fit the images."""
    try:
        return _outputs(network, noisy, names, seed)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, SmoothcertError):
            raise
        raise ModelOutputError(
            f"a model that failed on a batch of images {noisy.shape}",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            "Check that it takes float tensors (B, C, H, W) of this size",
        ) from error


def _outputs(network: Network, noisy: npt.NDArray[np.float32], names: list[Segment], seed: int) -> Tensor:
    draws = NamedDraws(seed, names, noisy.shape[1:], len(noisy)) if network.stochastic else None
    return network.outputs(noisy, draws)


def _equal(a: Tensor, b: Tensor) -> bool:
    """Equality to the bit, NaN equal to NaN."""
    return bool(((a == b) | ((a != a) & (b != b))).all())
