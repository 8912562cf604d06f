"""Heads that name a class by the nearest prototype: argmax_c <feature, t_c>, t_c unit vectors.

Prototypes come from text prompts or from a few examples of each class; the head itself is numbers and names,
and the certificates of ``smoothing`` ask nothing else of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor

from smoothcert.checkpoints import load_safetensors, read_config
from smoothcert.encoders import examples
from smoothcert.encoders.prompts import Prompts, by_class
from smoothcert.encoders.text import text_of
from smoothcert.errors import CheckpointError, InvalidInput
from smoothcert.protocols import Dataset

ARCHITECTURE = "smoothcert-zero-shot-head"
_WEIGHTS, _PROTOTYPES = "model.safetensors", "prototypes"
_UNIT = 1e-9

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ZeroShotHead:
    """One unit prototype a class, of the same space as an encoder's features.

    Args:
        prototypes: ``(C, k)`` float64, rows of length 1; k is the whole length of a feature (T d of tokens).
        classes: C different names, in the order of the rows.
        facts: where they come from, as plain data: the encoder, prompts or examples, seed.

    Raises:
        InvalidInput: fewer than two classes, names twice or missing, rows that are not unit vectors, or two
            classes with one prototype, which no feature can tell apart.
    """

    prototypes: Rows
    classes: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = np.array(self.prototypes, dtype=np.float64)
        rows.setflags(write=False)
        object.__setattr__(self, "prototypes", rows)
        object.__setattr__(self, "classes", tuple(self.classes))
        _check(rows, self.classes)

    @classmethod
    def from_prompts(
        cls, encoder: Any, prompts: Prompts, classes: Sequence[str] | None = None
    ) -> ZeroShotHead:
        """Prototypes from words, by the text tower that was trained beside the encoder.

        The prototype of a class is the direction of the mean of its prompts' unit features.

        Args:
            encoder: one with a text tower (CLIP, SigLIP), from ``encoders.load("transformers:...")``.
            prompts: one for each class; or several, ``{"cat": ["a photo of a cat", "a cat"], ...}``; or, with
                ``classes``, templates that hold ``{}`` for the name: ``["a photo of a {}", "a {}"]``.
            classes: names, in order; by default the prompts, or the keys.

        Raises:
            InvalidInput: an encoder without a text tower, an empty or overlong prompt, or prompts and classes
                that do not fit together.
        """
        text, asked = text_of(encoder), by_class(prompts, classes)
        rows = [
            _direction(_unit(text(list(own)), f"a prompt of class {name!r}")) for name, own in asked.items()
        ]
        facts = {
            "kind": "prompts",
            "encoder": _source(encoder),
            "prompts": {name: list(own) for name, own in asked.items()},
        }
        return cls(np.stack(rows), tuple(asked), facts)

    @classmethod
    def from_examples(
        cls,
        encoder: Callable[[Tensor], Any],
        data: Dataset | Mapping[str, npt.NDArray[Any]],
        *,
        shots: int | None = None,
        seed: int = 0,
        batch: int = 32,
    ) -> ZeroShotHead:
        """Prototypes from labelled images: the direction of the mean of their unit features, for each class.

        The examples are chosen by class from a stream that ``seed`` names, so that the same command makes the
        same head. Images that are certified later must not be among them.

        Args:
            encoder: an encoder, or any callable from images ``(B, C, H, W)`` in [0, 1] to features, such as
                one that returns smoothed features.
            data: a data set with labels, or images ``(N, C, H, W)`` by class name.
            shots: examples of each class; all of them where nothing is said.
            seed: names the choice. batch: images encoded at once.

        Raises:
            InvalidInput: a class with fewer images than ``shots``, or with none.
            ModelOutputError: features that are not finite, or without a direction.
        """
        chosen = examples.choose(data, shots, seed)
        rows = [
            _direction(_unit(examples.features(encoder, images, batch), f"an example of class {name!r}"))
            for name, images in chosen.images.items()
        ]
        facts = {"kind": "examples", "encoder": _source(encoder), **chosen.facts}
        return cls(np.stack(rows), tuple(chosen.images), facts)

    @property
    def sha256(self) -> str:
        """SHA-256 of the prototypes (little-endian float64) and the names."""
        whole = hashlib.sha256(json.dumps([list(self.prototypes.shape), list(self.classes)]).encode())
        whole.update(np.ascontiguousarray(self.prototypes, dtype="<f8").tobytes())
        return whole.hexdigest()

    def scores(self, features: npt.NDArray[Any]) -> Rows:
        """``(B, C)`` inner products of features ``(B, k)`` (or ``(B, T, d)``) with the prototypes.

        Raises:
            InvalidInput: features of another length.
        """
        rows = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
        self.check(rows.shape[1])
        return rows @ self.prototypes.T

    def labels(self, features: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """``(B,)`` the class of each feature: the nearest prototype, the first of equal ones."""
        found: npt.NDArray[np.int64] = self.scores(features).argmax(axis=1)
        return found

    def check(self, length: int) -> None:
        """Refuse features of another length than the prototypes; ``InvalidInput``."""
        if length != self.prototypes.shape[1]:
            found = f"features of {length} numbers for prototypes of {self.prototypes.shape[1]}"
            made = f" ({self.facts['encoder']})" if "encoder" in self.facts else ""
            why = f"a head works with the encoder that made its prototypes{made} and no other"
            raise InvalidInput(found, why, "Give that encoder, or make the head again for this one")

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {
            "kind": ARCHITECTURE,
            "classes": list(self.classes),
            "sha256": self.sha256,
            **dict(self.facts),
        }

    def save(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``; ``load`` reads them again, to the bit.

        Raises:
            CheckpointError: a place that cannot be written, or that holds another model.
        """
        root = Path(directory)
        written = root / "config.json"
        if written.exists() and read_config(written).get("architecture") != ARCHITECTURE:
            why = "it holds another model, which a head would replace"
            raise CheckpointError(f"head {str(root)!r}", why, "Name a directory of its own")
        config = {
            "architecture": ARCHITECTURE,
            "classes": list(self.classes),
            "facts": dict(self.facts),
            "sha256": self.sha256,
        }
        try:
            root.mkdir(parents=True, exist_ok=True)
            written.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            save_file({_PROTOTYPES: np.array(self.prototypes)}, root / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            why = f"it cannot be written ({error})"
            raise CheckpointError(f"head {str(root)!r}", why, "Name a directory that can be made") from error

    @classmethod
    def load(cls, directory: str | Path) -> ZeroShotHead:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: missing or corrupt files, or prototypes that are not those that were saved.
        """
        root = Path(directory)
        config = read_config(root / "config.json")
        if config.get("architecture") != ARCHITECTURE:
            raise _broken(root, f"its config.json does not say {ARCHITECTURE!r}")
        tensors = load_safetensors(root / _WEIGHTS)
        try:
            found = cls(tensors[_PROTOTYPES].numpy(), tuple(config["classes"]), config["facts"])
        except (KeyError, TypeError, InvalidInput) as error:
            raise _broken(root, f"its files do not describe a head ({error})") from error
        if found.sha256 != config.get("sha256"):
            raise _broken(root, "its prototypes or names are not those whose SHA-256 it states")
        return found


def _unit(features: Tensor, what: str) -> Rows:
    rows = features.detach().to(device="cpu", dtype=torch.float64).flatten(1).numpy()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        why = "it is not finite, or zero, and so has no direction"
        raise InvalidInput(f"the feature of {what}", why, "Check the encoder and this input")
    found: Rows = rows / length
    return found


def _direction(rows: Rows) -> Rows:
    mean = rows.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < _UNIT:
        why = "they point in opposite directions, so their mean has none"
        raise InvalidInput(f"{len(rows)} features of one class", why, "Choose other prompts or examples")
    found: Rows = mean / length
    return found


def _check(rows: Rows, classes: tuple[str, ...]) -> None:
    found = f"prototypes {rows.shape} for {len(classes)} classes"
    if rows.ndim != 2 or len(rows) != len(classes) or len(rows) < 2:
        why = "a head has two classes or more, and one row of k numbers for each"
        raise InvalidInput(found, why, "Give prototypes (C, k) and C names")
    names = [name for name in classes if isinstance(name, str) and name]
    if len(set(names)) != len(classes):
        raise InvalidInput(
            f"classes {list(classes)}", "each needs a name of its own", "Name them differently"
        )
    if not np.isfinite(rows).all() or np.abs(np.linalg.norm(rows, axis=1) - 1.0).max() > _UNIT:
        raise InvalidInput(found, "each row must be finite and of length 1", "Divide each row by its norm")
    equal = len(np.unique(rows, axis=0)) < len(rows)
    if equal:
        why = "two classes have the same prototype, and no feature can tell them apart"
        raise InvalidInput(found, why, "Give each class other prompts or examples")


def _source(encoder: Any) -> str:
    named = getattr(encoder, "source", None) or getattr(encoder, "__qualname__", None)
    return str(named or type(encoder).__qualname__)


def _broken(root: Path, why: str) -> CheckpointError:
    return CheckpointError(f"head {str(root)!r}", why, "Save it again")
