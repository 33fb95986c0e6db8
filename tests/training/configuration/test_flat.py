"""Options as dataclasses that callers and configurations give as flat arguments."""

import inspect
from dataclasses import dataclass

import pytest

from unrolled.training.configuration.flat import flat_options
from unrolled.training.configuration.schema import signature


@dataclass(frozen=True, kw_only=True)
class Size:
    width: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width={self.width}: expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class Order:
    shuffled: bool = True
    seed: int = 0


class Base:
    @flat_options
    def __init__(self, name: str, size: Size = Size(width=3)) -> None:
        self.name, self.size = name, size


class Derived(Base):
    @flat_options
    def __init__(self, name: str, size: Size = Size(width=5), order: Order = Order()) -> None:
        super().__init__(name=name, size=size)
        self.order = order


def test_fields_and_objects_are_the_same() -> None:
    assert Base(name="a").size == Size(width=3)
    assert Base(name="a", width=8).size == Base(name="a", size=Size(width=8)).size == Size(width=8)
    flat, given = Derived(name="a", seed=4, shuffled=False), Derived(name="a", order=Order(shuffled=False, seed=4))
    assert flat.order == given.order == Order(shuffled=False, seed=4)
    assert flat.size == Size(width=5, seed=4)  # a field of two dataclasses goes to each
    assert given.size == Size(width=5)
    assert Base("a", Size(width=2)).size == Base("a", width=2).size


def test_mistakes_are_answered() -> None:
    with pytest.raises(ValueError, match="width=0: expected 1 or more"):
        Derived(name="a", width=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wdth'"):
        Derived(name="a", wdth=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
        Derived(name="a", size=Size(), width=2)
    with pytest.raises(TypeError, match="takes 2 arguments by position, got 3"):
        Base("a", Size(), 3)
    with pytest.raises(TypeError, match="missing 1 required"):
        Derived(width=2)


def test_the_signature_lists_fields_with_the_defaults_of_the_argument() -> None:
    parameters = inspect.signature(Derived).parameters

    assert list(parameters) == ["name", "width", "seed", "shuffled"]
    assert parameters["width"].default == 5
    assert parameters["shuffled"].default is True


def test_the_schema_reads_the_same_fields_from_the_source() -> None:
    for target in ("unrolled_tasks.translation.Translation", "unrolled_tasks.captioning.Captioning"):
        found = signature(target)
        assert found is not None
        assert {"optimizer", "l1", "label_smoothing", "num_samples"} <= set(found.parameters)
        assert not {"optimization", "teacher_forcing", "generation"} & set(found.parameters)
        assert [kind.name for kind in found.parameters["label_smoothing"]] == ["float"]
