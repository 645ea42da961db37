"""Published weights by name: the URL of each file, how to recognise the file, and the input its network expects.

Different weights need different preprocessing and pooling, so both are recorded here beside the hash, and jaxcat keeps
them with the weights from then on. This module imports no framework.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxcat.models.preprocessing import BGR_MINUS_MEANS, MINUS_ONE_TO_ONE, Conventions, Preprocessing

# How the tensors of a file are named and ordered. `load.open_weights` detects the layout of a file.
KERAS_LEGACY_H5 = "keras-legacy-h5"  # Keras 2 and Keras Applications, or model.save("x.h5")
KERAS_3 = "keras-3"  # x.weights.h5 of Keras 3, and the one inside a .keras archive
TORCH = "torch"  # torchvision's names, which timm shares, in a .pth or a safetensors file
CANONICAL = "jaxcat"  # jaxcat's names in a safetensors file that describes itself

# Values of `data.resize`. Repeated here because weights and data do not import each other, and a file's description is
# checked against them; a test compares them with the table of data/images/resizing.py.
RESIZES = (SQUASH, CENTER_CROP, TIMM_RESIZE, TORCHVISION_RESIZE) = ("squash", "center_crop", "timm", "torchvision")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How images were resized when the published accuracy was measured.

    Attributes:
        image_size: pixels a side.
        resize: the value of `data.resize` that does the same.
        source: where that is published.
    """

    image_size: int
    resize: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Evaluation:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(image_size=int(plain["image_size"]), resize=str(plain["resize"]), source=str(plain["source"]))


@dataclasses.dataclass(frozen=True)
class WeightsSpec:
    """One published file.

    Attributes:
        name: what `--config.model.weights` calls it.
        backbone: the backbone of the weights; a name in `models.backbone.BACKBONES`.
        url: where it is published.
        file: its name in the cache.
        size: bytes, or None if the publisher does not say.
        md5: hexadecimal, or None.
        sha256: hexadecimal or the beginning of it, or None. If neither md5 nor sha256 is known, the first file that
            arrives and has the right structure is trusted, and later ones must equal it.
        with_top: whether the layers of the 1,000 classes are in the file.
        layout: how the tensors are named and ordered; one of the constants above.
        conventions: preprocessing of the images, and the pooling rule.
        licence: short name of the licence of the weights.
        notice: who made the weights from what, and where the licence is stated. Printed with the download and kept in
            the provenance of every run that begins with these weights.
        top1: published accuracy on the ImageNet validation set, per cent.
        top5: the same, if any of the five best guesses counts.
        accuracy_source: where top1 and top5 are published.
        hash_source: where md5 or sha256 are published, or why there is none.
        label_offset: outputs before the first of the 1000 classes, such as TF-slim's background class.
        evaluation: how top1 and top5 were measured, or None if the publisher does not say.
    """

    name: str
    backbone: str
    url: str
    file: str
    size: int | None
    md5: str | None
    sha256: str | None
    with_top: bool
    layout: str
    conventions: Conventions
    licence: str
    notice: str
    top1: float
    top5: float
    accuracy_source: str
    hash_source: str = ""
    label_offset: int = 0
    evaluation: Evaluation | None = None


# URLs and md5 sums: keras/src/applications/inception_v3.py. Preprocessing: mode "tf" of its preprocess_input. Pooling:
# "same" average pooling in Keras divides by the number of real pixels.
_KERAS_NO_TOP = WeightsSpec(
    name="keras-imagenet",
    backbone="inception_v3",
    url="https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    file="inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    size=87_910_968,
    md5="bcbd6486424b2319ff4ef7d526e38f63",
    sha256=None,
    hash_source="keras/src/applications/inception_v3.py",
    with_top=False,
    layout=KERAS_LEGACY_H5,
    conventions=Conventions(MINUS_ONE_TO_ONE, pool_counts_padding=False),
    licence="MIT",
    notice="Inception-v3 weights of Keras Applications, trained on ImageNet by the Keras team and released under the "
    "MIT licence, says the README of github.com/fchollet/deep-learning-models, where they were first published. The "
    "ImageNet images have terms of their own.",
    top1=77.9,
    top5=93.7,
    accuracy_source="https://keras.io/api/applications/",  # it says nothing of resizing and cropping
)


def _with_top(spec: WeightsSpec, *, md5: str) -> WeightsSpec:
    """The entry of Keras's file with the top, from the entry `spec` of the file without it."""
    return dataclasses.replace(
        spec,
        name=f"{spec.name}-top",
        url=spec.url.replace("_notop.h5", ".h5"),
        file=spec.file.replace("_notop.h5", ".h5"),
        size=None,
        md5=md5,
        with_top=True,
    )


_KERAS_TOP = _with_top(_KERAS_NO_TOP, md5="9a0d58056eeedaa3f26cb7ebd46da564")

# URLs and md5 sums: keras/src/applications/vgg19.py. Preprocessing: mode "caffe" of its preprocess_input. There is no
# average pooling in the blocks.
_VGG19 = WeightsSpec(
    name="keras-vgg19",
    backbone="vgg19",
    url="https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
    file="vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
    size=None,
    md5="253f8cb515780f3b799900260a226db6",
    sha256=None,
    hash_source="keras/src/applications/vgg19.py",
    with_top=False,
    layout=KERAS_LEGACY_H5,
    conventions=Conventions(BGR_MINUS_MEANS),
    licence="CC BY 4.0",
    notice="VGG-19 weights of the Visual Geometry Group, University of Oxford: Karen Simonyan and Andrew Zisserman, "
    "'Very Deep Convolutional Networks for Large-Scale Image Recognition' (arXiv:1409.1556), "
    "www.robots.ox.ac.uk/~vgg/research/very_deep. Licensed under Creative Commons Attribution 4.0 "
    "(creativecommons.org/licenses/by/4.0) and ported to Keras, says the README of "
    "github.com/fchollet/deep-learning-models. The ImageNet images have terms of their own.",
    top1=71.3,
    top5=90.0,
    accuracy_source="https://keras.io/api/applications/",  # as above
)
_VGG19_TOP = _with_top(_VGG19, md5="cbe5617147190e668d6c5d5026f83318")

_IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# URL, accuracy and evaluation: Inception_V3_Weights.IMAGENET1K_V1 in torchvision/models/inception.py (0.28). Pooling:
# F.avg_pool2d(…, padding=1) in its blocks counts padding. Preprocessing: pixels normalised by ImageNet's mean and
# deviation are brought to [-1, 1] by `transform_input`, which those weights switch on.
_TORCHVISION = WeightsSpec(
    name="torchvision",
    backbone="inception_v3",
    url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
    file="inception_v3_google-0cc3c7bd.pth",
    size=None,
    md5=None,
    sha256="0cc3c7bd",
    hash_source="the file's name: torch.hub.load_state_dict_from_url reads it as the beginning of the sha256",
    with_top=True,
    layout=TORCH,
    conventions=Conventions(MINUS_ONE_TO_ONE, pool_counts_padding=True),
    evaluation=Evaluation(299, TORCHVISION_RESIZE, "Inception_V3_Weights.IMAGENET1K_V1.transforms"),
    licence="BSD-3-Clause",
    notice="Inception-v3 weights of torchvision, ported from the TensorFlow checkpoint of the paper's authors. The "
    "licence is that of torchvision's repository; it names none for the weights. The ImageNet images have terms of "
    "their own.",
    top1=77.294,
    top5=93.45,
    accuracy_source="Inception_V3_Weights.IMAGENET1K_V1.meta",
)


def _timm(
    tag: str,
    *,
    top1: float,
    top5: float,
    trained: str,
    preprocessing: Preprocessing = MINUS_ONE_TO_ONE,
    sha256: str | None = None,
    hash_source: str = "none found that could be cited: trusted on first use",
) -> WeightsSpec:
    """One of timm's four files, by its plain URL on the Hugging Face hub.

    Preprocessing, crop and licence: `_cfg` and `default_cfgs` in timm/models/inception_v3.py (1.0.31); the files hold
    1000 outputs, `any source label offset has already been applied` (timm/models/_hub.py). Pooling: nn.AvgPool2d(3,
    stride=1, padding=1) counts padding, for the weights ported from TensorFlow too. Accuracy: results-imagenet.csv at
    commit 0173a139.
    """
    name = f"timm/inception_v3.{tag}"
    return WeightsSpec(
        name=name,
        backbone="inception_v3",
        url=f"https://huggingface.co/{name}/resolve/main/model.safetensors",
        file=f"timm_inception_v3.{tag}.safetensors",
        size=None,
        md5=None,
        sha256=sha256,
        hash_source=hash_source,
        with_top=True,
        layout=TORCH,
        conventions=Conventions(preprocessing, pool_counts_padding=True),
        evaluation=Evaluation(299, TIMM_RESIZE, "timm/models/inception_v3.py: crop_pct 0.875, bicubic"),
        licence="Apache-2.0",
        notice=f"Inception-v3 weights of timm, {trained}; licence as its configuration and model card state it. The "
        "ImageNet images have terms of their own.",
        top1=top1,
        top5=top5,
        accuracy_source="github.com/huggingface/pytorch-image-models, results/results-imagenet.csv",
    )


_TIMM = (
    _timm("gluon_in1k", top1=78.806, top5=94.374, trained="trained by GluonCV's authors", preprocessing=_IMAGENET),
    _timm("tf_in1k", top1=77.862, top5=93.644, trained="ported from TF-slim's 2016_08_28 checkpoint"),
    _timm("tf_adv_in1k", top1=77.592, top5=93.730, trained="ported from TensorFlow's adversarially trained checkpoint"),
    _timm(
        "tv_in1k",
        top1=77.434,
        top5=93.474,
        trained="from torchvision",
        sha256="9c452c63a67fd03a38a78c401ba12d4be0e926df63c93403de3a29f6df20fefb",
        hash_source="huggingface.co/timm/inception_v3.tv_in1k/blob/main/model.safetensors",
    ),
)

REGISTRY: dict[str, WeightsSpec] = {
    spec.name: spec for spec in (_KERAS_NO_TOP, _KERAS_TOP, _TORCHVISION, *_TIMM, _VGG19, _VGG19_TOP)
}
