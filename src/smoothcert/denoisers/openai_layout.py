"""The state dicts of improved-diffusion and guided-diffusion, as those of diffusers' ``UNet2DModel``.

Both code bases write one list of ``input_blocks``, a ``middle_block`` and one list of ``output_blocks``;
``UNet2DModel`` counts residual blocks, attentions and samplers of each scale apart. The shape of the network
is read off the tensors; only the number of attention heads is not in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smoothcert.errors import CheckpointError, InvalidInput

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True)
class Layout:
    """The shape of a network, read off its tensors.

    Attributes:
        channels: of the images.
        outputs: channels of the answer: as many, or twice as many where the variance is learned.
        widths: channels at each scale.
        blocks: residual blocks at each scale.
        attention: whether each scale has attention.
        residual_sampling: scales change by residual blocks (guided-diffusion) or by convolutions.
        scale_shift: how noise levels enter: scale and shift after a normalisation, or a sum before it.
    """

    channels: int
    outputs: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    residual_sampling: bool
    scale_shift: bool

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Layout:
        """Read the layout off a state dict.

        Raises:
            InvalidInput: a class-conditional network.
            CheckpointError: no state dict of these code bases.
        """
        if "label_emb.weight" in state:
            why = "it asks for a class label with every image, which is what a denoiser does not know"
            raise InvalidInput("a class-conditional network", why, "Take the unconditional checkpoint")
        try:
            return cls._of(state)
        except (KeyError, ZeroDivisionError, ValueError) as error:
            why = f"its tensors are not named as in improved-diffusion or guided-diffusion ({error})"
            raise CheckpointError("these weights", why, "Give a .pt file of one of the two") from error

    @classmethod
    def _of(cls, state: Mapping[str, Tensor]) -> Layout:
        inputs, outputs = _count(state, "input_blocks"), _count(state, "output_blocks")
        # Each scale but the last is followed by a sampler, on the way up inside its last block.
        ends = [j for j in range(outputs) if _sampler(state, j) is not None]
        blocks = ends[0] if ends else max(outputs, 2) - 1
        scales = outputs // (blocks + 1)
        firsts = [1 + scale * (blocks + 1) for scale in range(scales)]
        if not outputs or inputs != outputs or outputs != scales * (blocks + 1) or len(ends) != scales - 1:
            raise ValueError(f"{inputs} input and {outputs} output blocks make no scales of equal length")
        widths = tuple(len(state[f"input_blocks.{i}.0.out_layers.0.weight"]) for i in firsts)
        return cls(
            channels=state["input_blocks.0.0.weight"].shape[1],
            outputs=len(state["out.2.weight"]),
            widths=widths,
            blocks=blocks,
            attention=tuple(f"input_blocks.{i}.1.qkv.weight" in state for i in firsts),
            residual_sampling=any(".in_layers." in f".{_sampler(state, j)}." for j in ends),
            scale_shift=len(state["input_blocks.1.0.emb_layers.1.weight"]) == 2 * widths[0],
        )

    def config(self, head_channels: int) -> dict[str, Any]:
        """The arguments of ``UNet2DModel`` for this layout."""
        down = {True: "AttnDownBlock2D", False: "DownBlock2D"}
        up = {True: "AttnUpBlock2D", False: "UpBlock2D"}
        if self.residual_sampling:
            down[False], up[False] = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
        sampling = "resnet" if self.residual_sampling else "conv"
        return {
            "in_channels": self.channels,
            "out_channels": self.outputs,
            "layers_per_block": self.blocks,
            "block_out_channels": self.widths,
            "down_block_types": tuple(down[each] for each in self.attention),
            "up_block_types": tuple(up[each] for each in reversed(self.attention)),
            "downsample_type": sampling,
            "upsample_type": sampling,
            "resnet_time_scale_shift": "scale_shift" if self.scale_shift else "default",
            "attention_head_dim": head_channels,
            "norm_num_groups": 32,
            "attn_norm_num_groups": 32,  # left out, the middle attention silently loses its normalisation
            "norm_eps": 1e-5,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
        }

    def names(self) -> Iterator[tuple[str, str]]:
        """Every module by its name there and its name in ``UNet2DModel``; attentions up to ``.qkv``."""
        yield from _OUTSIDE.items()
        scales, index = len(self.widths), 1
        for scale in range(scales):
            for block in range(self.blocks):
                yield from self._block(
                    f"input_blocks.{index}", f"down_blocks.{scale}", block, self.attention[scale]
                )
                index += 1
            if scale < scales - 1:
                yield from self._sampling(
                    f"input_blocks.{index}.0", f"down_blocks.{scale}.downsamplers.0", "op"
                )
                index += 1
        yield from _residual("middle_block.0", "mid_block.resnets.0")
        yield from _attention("middle_block.1", "mid_block.attentions.0")
        yield from _residual("middle_block.2", "mid_block.resnets.1")
        yield from self._names_up()

    def _names_up(self) -> Iterator[tuple[str, str]]:
        scales = len(self.widths)
        for step, scale in enumerate(reversed(range(scales))):
            for block in range(self.blocks + 1):
                there = f"output_blocks.{step * (self.blocks + 1) + block}"
                yield from self._block(there, f"up_blocks.{step}", block, self.attention[scale])
                if scale and block == self.blocks:
                    last = 2 if self.attention[scale] else 1
                    yield from self._sampling(f"{there}.{last}", f"up_blocks.{step}.upsamplers.0", "conv")

    def _block(self, there: str, here: str, block: int, attention: bool) -> Iterator[tuple[str, str]]:
        yield from _residual(f"{there}.0", f"{here}.resnets.{block}")
        if attention:
            yield from _attention(f"{there}.1", f"{here}.attentions.{block}")

    def _sampling(self, there: str, here: str, convolution: str) -> Iterator[tuple[str, str]]:
        if self.residual_sampling:
            yield from _residual(there, here)
        else:
            yield f"{there}.{convolution}", f"{here}.conv"


def converted(
    state: Mapping[str, Tensor], layout: Layout, head_channels: int, *, new_order: bool = False
) -> dict[str, Tensor]:
    """The same weights under the names of ``UNet2DModel``, in float32; every tensor is used.

    Args:
        state: as published.
        layout: of this state.
        head_channels: channels of one attention head.
        new_order: queries, keys and values lie in three blocks over all heads (``use_new_attention_order``);
            else head by head.

    Raises:
        CheckpointError: tensors that the layout has no place for.
    """
    left = dict(state)
    result: dict[str, Tensor] = {}
    for there, here in layout.names():
        for part in ("weight", "bias"):
            tensor = left.pop(f"{there}.{part}", None)
            if tensor is None:
                continue
            if there.endswith(".qkv"):
                parts = _split(tensor, head_channels, new_order)
                result |= {
                    f"{here}.to_{name}.{part}": value for name, value in zip("qkv", parts, strict=True)
                }
            else:
                matrix = tensor.flatten(1) if there.endswith(".proj_out") and part == "weight" else tensor
                result[f"{here}.{part}"] = matrix.float()
    if left:
        some = ", ".join(sorted(left)[:3])
        why = f"{len(left)} tensors have no place in the network that the others make ({some}, ...)"
        raise CheckpointError("these weights", why, "Give a whole checkpoint of one of the two code bases")
    return result


def _split(tensor: Tensor, head_channels: int, new_order: bool) -> tuple[Tensor, ...]:
    """Queries, keys and values; rows run (head, which, channel), in the new order (which, head, channel)."""
    flat = tensor.flatten(1) if tensor.ndim > 1 else tensor
    heads = len(flat) // (3 * head_channels)
    order = (3, heads, head_channels) if new_order else (heads, 3, head_channels)
    by_part = flat.float().reshape(*order, *flat.shape[1:])
    return tuple(part.reshape(-1, *flat.shape[1:]) for part in torch.unbind(by_part, 0 if new_order else 1))


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{prefix}.")})


def _sampler(state: Mapping[str, Tensor], block: int) -> str | None:
    """What enlarges the image at the end of an output block, ``conv`` or ``in_layers``, if anything does."""
    for position in (1, 2):
        for kind in ("conv", "in_layers.0"):
            if f"output_blocks.{block}.{position}.{kind}.weight" in state:
                return kind.partition(".")[0]
    return None


def _residual(there: str, here: str) -> Iterator[tuple[str, str]]:
    for theirs, ours in _RESIDUAL.items():
        yield f"{there}.{theirs}", f"{here}.{ours}"


def _attention(there: str, here: str) -> Iterator[tuple[str, str]]:
    yield f"{there}.norm", f"{here}.group_norm"
    yield f"{there}.qkv", here
    yield f"{there}.proj_out", f"{here}.to_out.0"
