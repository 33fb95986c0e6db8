"""Heads against torch.distributions, torch.nn.functional and the losses that tasks summed before there were heads."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn import functional

from unrolled import (
    CategoricalHead,
    LabelsHead,
    MixtureHead,
    NumbersHead,
    QuantileHead,
    binary_cross_entropy,
    cross_entropy,
    squared_error,
)


def test_losses_are_minus_the_log_probability(generator: torch.Generator) -> None:
    logits = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator)
    classes = torch.randint(5, (3, 4), generator=generator)
    labels = torch.randint(2, (3, 4, 5), generator=generator).double()

    categorical, several = CategoricalHead(2, 5), LabelsHead(2, 5)

    oracle = Categorical(logits=logits).log_prob(classes)
    torch.testing.assert_close(categorical.losses(logits, classes), -oracle, rtol=0, atol=1e-13)
    torch.testing.assert_close(categorical.distribution(logits).log_prob(classes), oracle, rtol=0, atol=1e-13)
    oracle = Bernoulli(logits=logits).log_prob(labels).sum(-1)
    torch.testing.assert_close(several.losses(logits, labels), -oracle, rtol=0, atol=1e-13)
    torch.testing.assert_close(several.distribution(logits).log_prob(labels), oracle, rtol=0, atol=1e-13)


def test_soft_targets_cost_their_cross_entropy(generator: torch.Generator) -> None:
    logits = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    targets = torch.rand(6, 3, dtype=torch.float64, generator=generator)
    share = logits.sigmoid()

    oracle = -(targets * share.log() + (1 - targets) * (1 - share).log()).sum(-1)

    torch.testing.assert_close(LabelsHead(2, 3).losses(logits, targets), oracle, rtol=0, atol=1e-13)
    torch.testing.assert_close(NumbersHead(2, 3, bounded=True).losses(logits, targets), oracle, rtol=0, atol=1e-13)


def test_the_squared_error_is_half_of_torchs_and_a_normal_distributions(generator: torch.Generator) -> None:
    outputs, targets = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)
    head = NumbersHead(2, 3)

    loss = head.loss(outputs, targets)

    torch.testing.assert_close(loss.total, 0.5 * functional.mse_loss(outputs, targets, reduction="sum"))
    normal = torch.distributions.Normal(outputs, 1.0)
    constant = normal.log_prob(outputs).sum(-1)
    torch.testing.assert_close(head.losses(outputs, targets), constant - normal.log_prob(targets).sum(-1))
    assert torch.equal(head.predict(outputs), outputs)
    assert torch.equal(NumbersHead(2, 3, bounded=True).predict(outputs), outputs.sigmoid())


@pytest.mark.parametrize("training", [True, False])
def test_smoothing_and_weights_act_in_training_alone(training: bool, generator: torch.Generator) -> None:
    logits = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    classes, labels = torch.randint(4, (9,), generator=generator), torch.rand(9, 4, generator=generator).double()
    weights = [0.5, 2.0, 0.0, 1.0]
    options: dict[str, Any] = {"label_smoothing": 0.2, "class_weights": weights}

    categorical = CategoricalHead(2, 4, **options).train(training).losses(logits, classes)
    several = LabelsHead(2, 4, **options).train(training).losses(logits, labels)

    if training:
        weight = torch.tensor(weights).double()
        oracle = nn.CrossEntropyLoss(weight, label_smoothing=0.2, reduction="none")(logits, classes)
        smooth = labels * 0.8 + 0.1
        answers = functional.binary_cross_entropy_with_logits(logits, smooth, weight, reduction="none").sum(-1)
    else:
        oracle = functional.cross_entropy(logits, classes, reduction="none")
        answers = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)
    torch.testing.assert_close(categorical, oracle, rtol=0, atol=1e-13)
    torch.testing.assert_close(several, answers, rtol=0, atol=1e-13)


@pytest.mark.parametrize("masked", [True, False])
def test_language_models_numbers_stay_to_the_last_digit(masked: bool, generator: torch.Generator) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(6, 50)
    torch.manual_seed(1)
    head = CategoricalHead(6, 50, label_smoothing=0.1, class_weights=torch.rand(50, generator=generator).tolist())
    features, targets = torch.randn(7, 33, 6, generator=generator), torch.randint(50, (7, 33), generator=generator)
    mask = torch.rand(7, 33, generator=generator) < 0.7 if masked else None

    for smoothing, weights in ((0.1, head.class_weights), (0.0, None)):
        old = cross_entropy(layer(features), targets, mask, smoothing, weights)
        new = head.loss(head(features), targets, mask)
        assert torch.equal(new.total, old.total)
        assert new.count == old.count
        expected = torch.autograd.grad(old.total, (layer.weight, layer.bias))
        for one, other in zip(torch.autograd.grad(new.total, tuple(head.parameters())), expected, strict=True):
            assert torch.equal(one, other)
        head.eval()


def test_classifiers_numbers_stay_to_the_last_digit(generator: torch.Generator) -> None:
    outputs, targets = torch.randn(37, 11, generator=generator), torch.rand(37, 11, generator=generator)
    weights = torch.rand(11, generator=generator)
    labels, bounded, plain = LabelsHead(2, 11), NumbersHead(2, 11, bounded=True), NumbersHead(2, 11)
    labels.class_weights = weights  # as a task sets them that has counted its data

    pairs = [
        (labels.loss(outputs, targets), binary_cross_entropy(outputs, targets, weights)),
        (labels.eval().loss(outputs, targets), binary_cross_entropy(outputs, targets)),
        (bounded.loss(outputs, targets), binary_cross_entropy(outputs, targets)),
        (plain.loss(outputs, targets.double()), squared_error(outputs, targets.double())),
        (
            CategoricalHead(2, 11).loss(outputs, targets.argmax(-1)),
            cross_entropy(outputs.unsqueeze(1), targets.argmax(-1).unsqueeze(1)),
        ),
    ]

    for new, old in pairs:
        assert torch.equal(new.total, old.total)
        assert new.count == old.count


def test_tied_weights_are_the_embeddings_and_drawn_as_an_output_layers(generator: torch.Generator) -> None:
    embedding, head = nn.Embedding(9, 4), CategoricalHead(4, 9)

    head.tie(embedding)

    assert head.linear.weight is embedding.weight
    assert embedding.weight.abs().max() <= 0.5
    assert [id(p) for p in nn.ModuleList([embedding, head]).parameters()] == [
        id(embedding.weight),
        id(head.linear.bias),
    ]
    with pytest.raises(ValueError, match="an embedding of 9 classes by 4 features, the head's input; this one is 9 by"):
        head.tie(nn.Embedding(9, 5))


def test_a_class_that_there_is_not_is_an_error() -> None:
    with pytest.raises(IndexError, match="Target -100 is out of bounds"):
        CategoricalHead(2, 3).loss(torch.zeros(2, 3), torch.tensor([0, -100]))


@pytest.mark.parametrize("make", [partial(CategoricalHead, 4, 2), partial(LabelsHead, 4, 2)])
def test_options_that_cannot_be_are_refused(make: Any) -> None:
    for options, message in [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0, expected a share in"),
        ({"class_weights": [1.0]}, r"class_weights=\[1.0\]: 2 finite numbers"),
        ({"class_weights": [1.0, -1.0]}, "0 or more, or none"),
        ({"class_weights": [1.0, float("nan")]}, "0 or more, or none"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(**options)


DRAWN = {
    "categorical": CategoricalHead(4, 5),
    "labels": LabelsHead(4, 3),
    "strokes": MixtureHead(4, 3),
    "mixture": MixtureHead(4, 3, num_coordinates=1, end_of_stroke=False),
}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_are_those_of_the_distribution(name: str, generator: torch.Generator) -> None:
    head, number = DRAWN[name], 40_000
    parameters = torch.randn(head.output_size, generator=generator).double()
    distribution: Distribution = head.distribution(parameters)

    drawn = head.sample(parameters.expand(number, -1), generator)

    torch.manual_seed(1)
    oracle = distribution.sample((number,))
    if name == "categorical":
        drawn, oracle = (functional.one_hot(each, 5) for each in (drawn, oracle))
    for moment in (lambda each: each, lambda each: each.unsqueeze(-1) * each.unsqueeze(-2)):
        one, other = moment(drawn.double()), moment(oracle.double())
        # Two means of independent draws: five standard deviations of their difference.
        bound = 5 * ((one.var(0) + other.var(0)) / number).sqrt()
        assert ((one.mean(0) - other.mean(0)).abs() <= bound).all()
    if name != "categorical":
        assert ((drawn.mean(0) - distribution.mean).abs() <= 5 * (drawn.var(0) / number).sqrt()).all()


@pytest.mark.parametrize("name", ["categorical", "labels"])
def test_a_temperature_is_a_power_of_probabilities(name: str, generator: torch.Generator) -> None:
    head = DRAWN[name]
    parameters = torch.randn(7, head.output_size, dtype=torch.float64, generator=generator)

    found = head.probabilities(head.sharpen(parameters, 0.4))

    powers = head.probabilities(parameters) ** 2.5
    others = powers.sum(-1, keepdim=True) if name == "categorical" else powers + head.probabilities(-parameters) ** 2.5
    torch.testing.assert_close(found, powers / others, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("head", [NumbersHead(4, 2), QuantileHead(4, 2)], ids=["numbers", "quantile"])
def test_what_has_no_distribution_says_so(head: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"Head has no distribution in torch.distributions; use losses"):
        head.distribution(torch.zeros(head.output_size))
