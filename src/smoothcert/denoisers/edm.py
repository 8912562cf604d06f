"""Networks with the preconditioning of Karras et al. 2022 as denoisers of images in [0, 1].

D(z; sigma) = c_skip z + c_out F(c_in z; ln(sigma)/4) with z in [-1, 1] plus N(0, sigma^2): a denoiser of
images in [0, 1] asks it about twice its own sigma. F is any network of (images, noise level). ``edm:FILE``
reads the networks that the authors released, exported as a state dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from smoothcert.checkpoints import CARD, load_state, read_card, read_config
from smoothcert.denoisers import cards
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.denoisers.names import Name, number
from smoothcert.denoisers.songunet import SongUNet, SongUNetConfig
from smoothcert.denoisers.takes import Takes
from smoothcert.diffusion.closed_form import EdmSchedule
from smoothcert.diffusion.preconditioning import EdmPreconditioning
from smoothcert.diffusion.samplers import OneShot, Sampler
from smoothcert.errors import CheckpointError, InvalidInput

PUBLISHED_RANGE = (0.001, 40.0)
"""Noise levels of the published sampler, .002 to 80 on the model's scale, for images in [0, 1]."""

RESIDUAL_UNET = "ResidualUNet"
"""What ``config.json`` of a directory of our own training calls its network."""

OPTIONS = ("sigma_data",)
_EXPORT = (
    "In an environment that you trust with it, write: torch.save(pickle.load(open('X.pkl', 'rb'))['ema']."
    "state_dict(), 'X.pt'), with NVlabs/edm on PYTHONPATH, and give edm:X.pt"
)
_ONE_SHOT = OneShot()


def preconditioned(
    network: nn.Module | Callable[[Tensor, Tensor], object],
    *,
    sigma_data: float = 0.5,
    sigma_range: tuple[float, float] = PUBLISHED_RANGE,
    sign: int = 1,
    sampler: Sampler = _ONE_SHOT,
    takes: Takes | None = None,
    source: str | None = None,
) -> DiffusionDenoiser:
    """The EDM denoiser around any network F.

    Args:
        network: F, ``(c_in z (B, C, H, W), ln(sigma)/4 (B,)) -> (B, C, H, W)``.
        sigma_data: standard deviation of clean images on [-1, 1].
        sigma_range: smallest and largest noise it was trained for, in units of images in [0, 1].
        sign: of c_out; -1 for diffusers' EDM schedulers with ``prediction_type="v_prediction"``.
        sampler: one-shot if not given.
        takes: the images F was built for.
        source: the name it was loaded by.

    Raises:
        InvalidInput: a range or sigma_data that is not positive, finite and in order.
    """
    least, most = sigma_range
    return DiffusionDenoiser(
        network,
        EdmSchedule(least=2 * least, most=2 * most),
        prediction=EdmPreconditioning(sigma_data, sign),
        sampler=sampler,
        takes=takes,
        source=source,
    )


def load(text: str) -> DiffusionDenoiser:
    """The denoiser of ``edm:FILE``, the state dict of a network of NVlabs/edm (DDPM++ or NCSN++).

    Its shape is read off the tensors; ``sigma_data`` is .5, as in all released models, unless
    ``edm:FILE?sigma_data=...`` says otherwise.

    Raises:
        InvalidInput: a class-conditional network, or one trained with another preconditioning.
        CheckpointError: a file that is missing, damaged, of another architecture, not what its card says, or
            would run code, such as the released pickles themselves.
    """
    name = Name.parse(text, known=OPTIONS)
    card = cards.find(name.path)
    path = name.existing(card.source if card else None)
    settings = {"sigma_data": 0.5, **(card.settings if card else {}), **name.options}
    _refuse(path)
    network = song_unet(load_state(path))
    return preconditioned(
        network,
        sigma_data=number("sigma_data", settings["sigma_data"]),
        takes=Takes(network.config.image_channels, 2 ** (len(network.config.channels) - 1)),
        source=text,
    )


def song_unet(state: Mapping[str, Tensor]) -> SongUNet:
    """The network of a released state dict, its names with or without ``model.`` in front.

    Raises:
        InvalidInput: a class-conditional network.
        CheckpointError: tensors that are missing, superfluous, or of another architecture.
    """
    bare = {name.removeprefix("model."): tensor.float() for name, tensor in state.items()}
    if any(name.startswith("map_label.") for name in bare):
        why = "it asks for a class label with every image, which is what a denoiser does not know"
        raise InvalidInput(
            "a class-conditional network", why, "Take an unconditional one (-uncond- in its name)"
        )
    try:
        network = SongUNet(SongUNetConfig.of(bare))
        network.load_state_dict(bare, strict=True)
    except (KeyError, ValueError, RuntimeError) as error:
        why = f"its tensors make no DDPM++ or NCSN++ network ({' '.join(str(error).split())[:200]})"
        raise CheckpointError("these weights", why, "Give a state dict of NVlabs/edm") from error
    return network.eval()


def _refuse(path: Path) -> None:
    """Released pickles hold code, and the baselines beside them were trained with another preconditioning."""
    if path.suffix == ".pkl":
        why = "a pickled network of NVlabs/edm holds its own code and runs it when opened"
        raise CheckpointError(f"weights {str(path)!r}", why, _EXPORT)
    if path.name.startswith("baseline-"):
        why = "the baselines have the tensors of EDM networks but not EDM's preconditioning"
        raise InvalidInput(f"weights {str(path)!r}", why, "Take the edm-... network of the same data")


def load_residual_unet(directory: str | Path) -> DiffusionDenoiser:
    """Read a directory written by ``residual_unet.save`` with ``preconditioning="edm"``.

    ``config.json`` names ``sigma_data`` and ``trained_sigma``, the two ends of the noise trained on, in units
    of images in [0, 1].

    Raises:
        CheckpointError: files that are missing, corrupt, or not what the card says, or a
            configuration without these settings.
    """
    from smoothcert.denoisers import residual_unet

    root = Path(directory)
    if (root / CARD).exists():
        read_card(root)
    network = residual_unet.load(root)
    config = read_config(root / "config.json")
    try:
        if config["preconditioning"] != "edm":
            raise ValueError(f"preconditioning {config['preconditioning']!r} is not known")
        least, most = (float(end) for end in config["trained_sigma"])
        sigma_data = float(config["sigma_data"])
    except (KeyError, TypeError, ValueError) as error:
        given = f"configuration {str(root / 'config.json')!r}"
        why = f"it does not say how the network is to be asked ({type(error).__name__}: {error})"
        instead = 'Write "preconditioning": "edm", "sigma_data" and "trained_sigma": [smallest, largest]'
        raise CheckpointError(given, why, instead) from error
    return preconditioned(
        network,
        sigma_data=sigma_data,
        sigma_range=(least, most),
        takes=Takes(network.config.image_channels, 2 ** (len(network.config.channels) - 1)),
        source=str(root),
    )
