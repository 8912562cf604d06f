"""Image classifiers of the transformers library: ``transformers:HUB_ID_OR_DIRECTORY``."""

from __future__ import annotations

from smoothcert.classifiers import labels
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.networks import options as opt
from smoothcert.networks import transformers as hf
from smoothcert.networks.transformers import PREFIX as PREFIX


def load(name: str) -> PretrainedClassifier:
    """Read ``transformers:HUB_ID_OR_DIRECTORY?options``; beside the common options, ``revision=``.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointError: a model that is not there, lacks weights, needs code of its own, or whose processor
            does something that smoothcert does not.
    """
    bare, options = opt.split(name, (*opt.COMMON, "revision"))
    where = bare.removeprefix(PREFIX)
    hub = hf.place(where, options)
    with hf.library("a classifier of the transformers library") as library:
        auto = library.AutoModelForImageClassification
        network = hf.read(bare, lambda: hf.network(auto, where, hub))
        processor = hf.read(bare, lambda: hf.image_processor(library, where, hub))
    config = network.config
    own = hf.preprocessing(processor, bare, channels=int(getattr(config, "num_channels", None) or 3))
    count = int(config.num_labels)
    return PretrainedClassifier(
        network.float().eval().requires_grad_(False),
        opt.preprocessing(options, own),
        kind="transformers",
        class_count=count,
        classes=opt.classes(options, labels.meaningful([config.id2label[k] for k in range(count)])),
        settings={"architecture": type(network).__name__},
    )
