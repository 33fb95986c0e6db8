"""Every head of one prediction per row or step, with targets that it can be given."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from unrolled import CategoricalHead, Head, LabelsHead, MixtureHead, NormalHead, NumbersHead, QuantileHead, StudentTHead


class Case(NamedTuple):
    make: Callable[..., Head]
    targets: Callable[..., Tensor]  # leading axes and a generator -> targets
    entries: bool = False  # a mask may hide single entries


def classes(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randint(5, shape, generator=generator)


def numbers(*shape: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, size, generator=generator)


def shares(*shape: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.rand(*shape, size, generator=generator)


def strokes(*shape: int, generator: torch.Generator) -> Tensor:
    points = torch.randn(*shape, 2, generator=generator)
    return torch.cat([points, torch.randint(2, (*shape, 1), generator=generator).float()], -1)


CASES = {
    "categorical": Case(partial(CategoricalHead, num_classes=5), classes),
    "labels": Case(partial(LabelsHead, num_labels=3), partial(shares, size=3), entries=True),
    "numbers": Case(partial(NumbersHead, num_outputs=3), partial(numbers, size=3), entries=True),
    "bounded": Case(partial(NumbersHead, num_outputs=3, bounded=True), partial(shares, size=3), entries=True),
    "quantile": Case(partial(QuantileHead, num_outputs=2), partial(numbers, size=2), entries=True),
    "normal": Case(partial(NormalHead, num_outputs=2), partial(numbers, size=2), entries=True),
    "student_t": Case(partial(StudentTHead, num_outputs=2), partial(numbers, size=2), entries=True),
    "strokes": Case(partial(MixtureHead, num_components=4), strokes),
    "mixture": Case(
        partial(MixtureHead, num_components=4, num_coordinates=1, end_of_stroke=False), partial(numbers, size=1)
    ),
}


@pytest.fixture(scope="session", params=CASES)
def case(request: Any) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="session", params=[name for name, case in CASES.items() if case.entries])
def entry_case(request: Any) -> Case:
    return CASES[request.param]
