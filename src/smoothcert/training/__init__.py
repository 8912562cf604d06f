"""Making networks: small classifiers and denoisers from scratch, and given ones fine-tuned, on one machine.

Loops run on ``accelerate`` (extra ``[train]``), averaging and learning rates are diffusers'. Every random
number comes from the seed, so the same seed, versions and thread count give the same weights bit for bit. May
import the model and data rooms; certification never imports this one.
"""

from __future__ import annotations

from smoothcert.training.booster import train_booster
from smoothcert.training.cards import add_figures
from smoothcert.training.classifier import train_classifier
from smoothcert.training.denoiser import train_denoiser
from smoothcert.training.edm import train_edm_denoiser
from smoothcert.training.figures import accuracy, psnr
from smoothcert.training.finetune import finetune
from smoothcert.training.loop import Trained

__all__ = [
    "Trained",
    "accuracy",
    "add_figures",
    "finetune",
    "psnr",
    "train_booster",
    "train_classifier",
    "train_denoiser",
    "train_edm_denoiser",
]
