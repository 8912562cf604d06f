"""Vision-language models that see through a smoothed vision tower.

The language model is given c F_N(x) / ||F_N(x)||, F_N the mean of n draws' unit tower features (all T tokens
as one row of T d numbers) and c one fixed length. So the direction, which is certified, is all it learns of
the picture: c is the same for every picture, and the length of F_N is not passed on.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.encoders import PretrainedEncoder, vision_tower
from smoothcert.encoders.dialogue import dialogue, token_ids
from smoothcert.encoders.llava import parts_of
from smoothcert.errors import InvalidInput, ModelOutputError, UnknownName
from smoothcert.protocols import Denoiser, Mapper
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.noise import FloatNoise
from smoothcert.smoothing.smoothed import Image, count_of, pixels
from smoothcert.smoothing.streams import is_whole

_OWN = {"input_ids", "inputs_embeds", "attention_mask", "pixel_values", "max_new_tokens"}


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said of a picture.

    Attributes:
        text: without the prompt. features: what the language model was given, ``(T, d)``.
        certificate: of these features (``FeatureCertificate``), where it was asked for. It bounds their
            direction, not the text: a text may change with any change of the features.
    """

    text: str
    features: npt.NDArray[np.float64]
    certificate: Any | None = None


class SmoothedVLM:
    """A LLaVA-style model whose vision tower is smoothed; its language model runs unchanged.

    What is certified: for every ||delta|| <= radius, the tower output that the language model is given for
    x + delta makes at most the angle arccos(``served_cosine_lower(radius)``) with the one for x, all tokens
    taken as one vector. Both have the length ``norm``, so they are at most norm sqrt(2 - 2 cos) apart. What
    is not certified: single tokens, and the text. Answers from a fixed set are certified by votes, with
    ``SmoothedClassifier(encoders.answer_classifier(...), sigma)``.

    The draws of a served feature must be fresh: whoever knows ``seed`` before choosing delta can look for a
    delta at which these very draws are unlucky. Against such an attacker keep the seed secret.

    Args:
        model: a ``LlavaForConditionalGeneration`` of the transformers library, on any device.
        processor: the model's own.
        sigma: standard deviation of the Gaussian noise, on pixels in [0, 1].
        norm: the fixed length c. Or ``calibration``: images ``(B, 3, H, W)``, uint8 levels or floats in
            [0, 1], whose mean length of clean tower features it shall be, as language models notice the
            scale. One of the two.
        denoiser, mapper: as for ``SmoothedEncoder``; a mapper gets ``(B, T, d)``.
        n: draws of the served feature.
        noise, levels, precision: as for ``SmoothedEncoder``.

    Attributes:
        tower: the bare vision tower, an encoder.
        smoothed: the smoothed tower, whose certificates are its own.
        norm: c.

    Raises:
        InvalidInput: a model that is built in another way, or not one of ``norm`` and ``calibration``.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        sigma: float,
        *,
        norm: float | None = None,
        calibration: Image | None = None,
        denoiser: Denoiser | None = None,
        mapper: Mapper | None = None,
        n: int = 1_000,
        noise: str = "grid",
        levels: int | None = None,
        precision: str = "float32",
    ) -> None:
        parts_of(model)  # another model is refused before it is touched
        self.model, self.processor = model.eval(), processor
        self.tower: PretrainedEncoder = vision_tower(model, processor)
        self.n = count_of("n", n)
        self.device = next(parts_of(model).vision_tower.parameters()).device
        self.smoothed = SmoothedEncoder(
            self.tower,
            sigma,
            denoiser=denoiser,
            mapper=mapper,
            noise=noise,
            levels=levels,
            device=str(self.device),
            precision=precision,
        )
        self.norm = self._length(norm, calibration)

    def _length(self, norm: float | None, calibration: Image | None) -> float:
        if (norm is None) == (calibration is None):
            raise InvalidInput(
                f"norm={norm!r} and {'no' if calibration is None else 'some'} calibration images",
                "the language model is given features of one fixed length, which must be said once",
                "Give norm=, or some ordinary pictures as calibration=",
            )
        if calibration is not None:
            images = torch.from_numpy(_calibration(calibration, self.smoothed.levels)).to(self.device)
            with torch.inference_mode():
                features = self.tower(images).double().flatten(1)
            norm = float(torch.linalg.vector_norm(features, dim=1).mean())
        number = isinstance(norm, int | float | np.integer | np.floating) and not isinstance(norm, bool)
        if number and norm is not None and 0 < norm < np.inf:
            return float(norm)
        instead = "Write for example norm=40.0" if calibration is None else "Look at the tower's features"
        raise InvalidInput(f"norm={norm!r}", "a length is a positive and finite number", instead)

    def features(
        self,
        image: Image,
        *,
        n: int | None = None,
        seed: int = 0,
        example: int | Sequence[int] | None = None,
        batch: int | None = None,
    ) -> npt.NDArray[np.float64]:
        """What the language model is given of a picture: ``(T, d)``, or ``(B, T, d)`` of several.

        Arguments are those of ``SmoothedEncoder.encode``; ``n`` is by default the model's own.

        Raises:
            ModelOutputError: draws whose mean is zero, so that it has no direction.
        """
        mean = self.smoothed.encode(
            image, n=self.n if n is None else n, seed=seed, example=example, batch=batch
        )
        length = np.linalg.norm(mean, axis=-1, keepdims=True)
        if not (length > 0).all():
            found, why = "a mean feature of length 0", "it has no direction to serve"
            raise ModelOutputError(found, why, "Choose a smaller sigma, or a denoiser")
        served: npt.NDArray[np.float64] = self.norm * mean / length
        return served.reshape(*mean.shape[:-1], *self.tower.shape)

    @contextmanager
    def serving(self, features: npt.NDArray[np.float64] | Tensor) -> Iterator[Any]:
        """Within it the model sees these features in place of any picture; afterwards it is as before.

        ``with vlm.serving(vlm.features(picture)) as model: model.generate(**inputs)`` runs whatever the model
        does, from inputs prepared as ever: their pixels are not looked at. The model must not be used from
        another thread meanwhile.

        Args:
            features: ``(T, d)`` for all pictures of the inputs, or ``(B, T, d)``, one each.

        Raises:
            InvalidInput: features of another shape than the tower's.
        """
        given = torch.as_tensor(np.asarray(features) if not isinstance(features, Tensor) else features)
        given = given[None] if given.ndim == 2 else given
        if tuple(given.shape[1:]) != self.tower.shape or not torch.isfinite(given).all():
            wanted = "x".join(map(str, self.tower.shape))
            found = f"features {tuple(given.shape)} to serve"
            why = f"the tower gives {wanted} finite numbers for a picture"
            raise InvalidInput(found, why, "Serve what features() returns")

        def exchanged(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            seen = arguments[0]
            if seen.shape[1:] != given.shape[1:] or len(seen) % len(given):
                found = f"{len(given)} served features for {len(seen)} pictures {tuple(seen.shape[1:])}"
                why = "each picture of the inputs needs one"
                raise InvalidInput(found, why, "Serve as many as the inputs have pictures")
            return (given.to(seen).repeat_interleave(len(seen) // len(given), dim=0), *arguments[1:])

        handle = parts_of(self.model).multi_modal_projector.register_forward_pre_hook(exchanged)
        try:
            yield self.model
        finally:
            handle.remove()

    def answer(
        self,
        image: Image,
        question: str,
        *,
        n: int | None = None,
        seed: int = 0,
        example: int | None = None,
        max_new_tokens: int = 64,
        generation: Mapping[str, Any] | None = None,
        certificate: Mapping[str, Any] | bool = False,
    ) -> Answer:
        """Ask about one picture ``(3, H, W)``, on smoothed features.

        Args:
            question: in the processor's chat template (``encoders.dialogue``); with the image token in it,
                it is the whole prompt.
            n, seed, example: of the served feature, as for ``features``.
            max_new_tokens: at most so many tokens of answer.
            generation: more arguments of ``generate``. Without them it takes the likeliest token each time.
            certificate: ``True``, or arguments of ``certify``, to have the features' certificate too. It is
                about the features served here: its ``served``, ``seed`` and ``example`` are theirs.

        Raises:
            InvalidInput: several pictures, an empty question, a bad number, or a certificate of something
                else than the features that are served.
        """
        count_of("max_new_tokens", max_new_tokens, what="the most tokens of an answer", such_as=64)
        own = sorted(_OWN & set(generation or {}))
        if own:
            given, why = f"generation= with {', '.join(own)}", "answer itself gives these to generate"
            raise InvalidInput(given, why, "Leave them out; max_new_tokens is an argument of answer")
        served_by = {"served": self.n if n is None else n, "seed": seed, "example": example}
        asked = _asked(certificate, served_by)
        self._check_picture(image)
        tokens = torch.tensor([token_ids(self.processor, dialogue(self.processor, question))])
        served = self.features(image, n=n, seed=seed, example=example)
        proof = None if asked is None else self.certify(image, **asked)
        tokens, settings = tokens.to(self.device), {"do_sample": False, **(generation or {})}
        with self.serving(served) as model, torch.inference_mode():
            said = model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                pixel_values=self._nothing(),
                max_new_tokens=max_new_tokens,
                **settings,
            )
        words = self.processor.tokenizer.decode(said[0, tokens.shape[1] :], skip_special_tokens=True)
        return Answer(str(words).strip(), served, proof)

    def certify(self, image: Image, *, served: int | None = None, **settings: Any) -> Any:
        """The certificate of the tower's features: ``SmoothedEncoder.certify``, with its arguments.

        ``served`` is by default the model's own ``n``, so that ``served_cosine_lower`` speaks of what the
        language model is given.
        """
        return self.smoothed.certify(image, served=self.n if served is None else served, **settings)

    def describe(self) -> dict[str, Any]:
        """Plain data: the tower, the fixed length, the noise and the draws of a served feature."""
        return {
            "tower": self.tower.describe(),
            "source": self.tower.source,
            "norm": self.norm,
            "sigma": self.smoothed.sigma,
            "served": self.n,
        }

    def _check_picture(self, image: Image) -> None:
        """Refuse what is no single picture ``(3, H, W)``."""
        shape = pixels(image, self.smoothed.levels).shape
        if len(shape) != 3:
            found = f"images of shape {shape}"
            raise InvalidInput(found, "a question is about one picture (3, H, W)", "Ask about each by itself")
        self.tower.preprocessing.check(shape)

    def _nothing(self) -> Tensor:
        """Black pixels of the size that the tower takes: they stand where a picture would."""
        side = int(self.model.config.vision_config.image_size)
        weight = next(parts_of(self.model).vision_tower.parameters())
        return torch.zeros(
            1, self.tower.preprocessing.channels, side, side, dtype=weight.dtype, device=weight.device
        )


def _calibration(images: Image, levels: int | None) -> npt.NDArray[np.float32]:
    """Calibration images as floats in [0, 1], from these or from levels."""
    if isinstance(images, Tensor | np.ndarray) and (images.ndim != 4 or 0 in images.shape):
        raise InvalidInput(
            f"calibration images of shape {tuple(images.shape)}",
            "their mean length needs a batch (B, 3, H, W) of at least one",
            "Stack some ordinary pictures",
        )
    array = pixels(images, levels)
    return FloatNoise(1.0, 255 if levels is None else levels).prepare(array)


def _asked(certificate: Mapping[str, Any] | bool, served_by: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of ``certify`` for the features that are served; ``None`` for no certificate.

    Raises:
        InvalidInput: what would certify other features. UnknownName: an argument that does not exist.
    """
    if isinstance(certificate, bool):
        return dict(served_by) if certificate else None
    if not isinstance(certificate, Mapping):
        found = f"certificate={certificate!r}"
        raise InvalidInput(found, "it is no set of arguments", "Write certificate=True, or dict(alpha=0.01)")
    known = set(inspect.signature(SmoothedEncoder.certify).parameters) - {"self", "image"}
    for name, value in certificate.items():
        if name not in known:
            raise UnknownName.among("argument of certificate=", str(name), known)
        wanted = served_by.get(name)
        if name in served_by and value is not wanted and not (is_whole(value) and value == wanted):
            argument = "n" if name == "served" else name
            raise InvalidInput(
                f"certificate={{{name!r}: {value!r}}} with features served by {argument}={wanted!r}",
                "the certificate would speak of other features than those that the language model is given",
                f"Leave {name} out of certificate=, and give {argument}= to answer itself",
            )
    return {**certificate, **served_by}
