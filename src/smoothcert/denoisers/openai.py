"""The checkpoints of improved-diffusion and guided-diffusion (OpenAI), as published: ``openai:FILE.pt``.

The network becomes diffusers' ``UNet2DModel``, exact to rounding. What the tensors do not say (schedule,
steps, heads) comes, in the words of the two code bases' own flags, from options in the name, from a ``.json``
beside the file, or from the file's card.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from smoothcert.checkpoints import load_state, read_config
from smoothcert.denoisers import cards
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.denoisers.names import Name, number, truth
from smoothcert.denoisers.openai_layout import Layout, converted
from smoothcert.denoisers.takes import Takes
from smoothcert.diffusion.schedule import TableSchedule, beta_schedule
from smoothcert.errors import CheckpointError, InvalidInput, UnknownName

OPTIONS = (
    "noise_schedule",
    "diffusion_steps",
    "rescale_timesteps",
    "num_heads",
    "num_head_channels",
    "use_new_attention_order",
    "predict_xstart",
)
_NETWORK_STEPS = 1000  # a rescaled network sees times 0 .. 1000 whatever the number of its steps


def load(text: str) -> DiffusionDenoiser:
    """The denoiser of ``openai:FILE`` or ``openai:FILE?noise_schedule=cosine&diffusion_steps=4000&...``.

    Options are flags of the two code bases: ``noise_schedule``, ``diffusion_steps``, ``num_heads`` or
    ``num_head_channels``, ``rescale_timesteps``, ``use_new_attention_order``, ``predict_xstart``.

    Raises:
        InvalidInput: a setting that nothing says, or a class-conditional network.
        CheckpointError: a file that is missing, damaged, of another architecture, not what its card says, or
            would run code.
    """
    name = Name.parse(text, known=OPTIONS)
    card = cards.find(name.path)
    path = name.existing(card.source if card else None)
    beside = path.with_suffix(".json")
    written = read_config(beside) if beside.is_file() else {}
    settings = {**(card.settings if card else {}), **written, **name.options}
    state = load_state(path)
    layout = Layout.of(state)
    _compare(written, layout, str(path))
    schedule, predicts = (
        _schedule(settings, text),
        truth("predict_xstart", settings.get("predict_xstart", False)),
    )
    network = build(state, layout, _head_channels(settings, layout, text), settings)
    return DiffusionDenoiser(
        network,
        schedule,
        prediction="x0" if predicts else "epsilon",
        takes=Takes(layout.channels, 2 ** (len(layout.widths) - 1)),
        source=text,
    )


def build(
    state: Mapping[str, Tensor], layout: Layout, head_channels: int, settings: Mapping[str, Any]
) -> nn.Module:
    """A ``UNet2DModel`` with these weights, on the device they are on.

    Raises:
        CheckpointError: tensors that are missing, superfluous, or of another shape.
    """
    import torch
    from diffusers import UNet2DModel

    new_order = truth("use_new_attention_order", settings.get("use_new_attention_order", False))
    weights = converted(state, layout, head_channels, new_order=new_order)
    with torch.device("meta"):  # no time is spent on initial weights
        model: Any = UNet2DModel  # it has no types
        network: nn.Module = model(**layout.config(head_channels))
    try:
        network.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        why = f"tensors are missing or of another shape ({' '.join(str(error).split())[:200]})"
        raise CheckpointError("these weights", why, "Give a whole checkpoint of one of the two") from error
    return network.eval()


def _schedule(settings: Mapping[str, Any], text: str) -> TableSchedule:
    for needed, example in (("noise_schedule", "cosine"), ("diffusion_steps", "4000")):
        if needed not in settings:
            raise _unsaid(text, needed, example, "a network does not know its own noise levels")
    steps = round(number("diffusion_steps", settings["diffusion_steps"]))
    if "rescale_timesteps" not in settings and steps != _NETWORK_STEPS:
        why = f"a network trained with {steps} steps may see step t as t or as t * 1000 / {steps}"
        raise _unsaid(text, "rescale_timesteps", "true", why)
    rescaled = truth("rescale_timesteps", settings.get("rescale_timesteps", False))
    return dataclasses.replace(
        _table(str(settings["noise_schedule"]), steps), time_scale=_NETWORK_STEPS / steps if rescaled else 1.0
    )


def _table(name: str, steps: int) -> TableSchedule:
    """The betas that the code bases call linear (ends for 1000 steps, rescaled) and cosine (below .999)."""
    if name == "cosine":
        return beta_schedule("squaredcos_cap_v2", steps)
    if name == "linear":
        return beta_schedule("linear", steps, start=0.1 / steps, end=20.0 / steps)
    raise UnknownName.among("noise_schedule", name, ("cosine", "linear"))


def _head_channels(settings: Mapping[str, Any], layout: Layout, text: str) -> int:
    """Channels of one attention head, which must be the same everywhere (``UNet2DModel`` has one number)."""
    each = round(number("num_head_channels", settings.get("num_head_channels", -1)))
    widths = {width for width, has in zip(layout.widths, layout.attention, strict=True) if has}
    widths.add(layout.widths[-1])  # the middle block's
    if each <= 0:
        if "num_heads" not in settings:
            why = "the number of attention heads is not in the weights"
            raise _unsaid(text, "num_heads", "4", why)
        heads = round(number("num_heads", settings["num_heads"]))
        sizes = {width / max(heads, 1) for width in widths}
        each = round(max(sizes)) if len(sizes) == 1 else 0
    if each <= 0 or any(width % each for width in widths):
        raise InvalidInput(
            f"attention heads for {', '.join(str(width) for width in sorted(widths))} channels",
            "they do not divide into heads of one size, the only kind that UNet2DModel has",
            "Check num_heads and num_head_channels",
        )
    return each


def _compare(written: Mapping[str, Any], layout: Layout, path: str) -> None:
    """A configuration that contradicts the tensors belongs to another file."""
    found = {
        "num_channels": layout.widths[0],
        "num_res_blocks": layout.blocks,
        "learn_sigma": layout.outputs == 2 * layout.channels,
        "class_cond": False,
        "use_scale_shift_norm": layout.scale_shift,
    }
    wrong = [key for key, value in found.items() if key in written and written[key] != value]
    if wrong and not (wrong == ["num_channels"] and layout.widths[0] % int(written["num_channels"]) == 0):
        why = f"the .json beside it says another {', '.join(wrong)}"
        raise CheckpointError(f"weights {path!r}", why, "Put the two files of one model beside each other")


def _unsaid(text: str, key: str, example: str, why: str) -> InvalidInput:
    base, _, query = text.partition("?")
    write = f"{base}?{query + '&' if query else ''}{key}={example}"
    return InvalidInput(
        f"denoiser {text!r} without {key}",
        why,
        f"Write {write}, or put the model's flags in a .json beside it",
    )
