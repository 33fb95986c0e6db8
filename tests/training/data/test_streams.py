"""Streams of windows against the laws that make truncated backpropagation right, whatever the plan."""

import gc
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from unrolled.processing.text.base import Tokenizer
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.data.plans import RandomWindowPlan, StreamPlan, WindowSpec
from unrolled.training.data.streams import Window, token_window
from unrolled.training.data.tokens import Tokens, write_tokens

START = 60_000
Loader = PlannedLoader[Tokens, WindowSpec, Window]
law = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Places(Tokenizer):
    """Encodes a text in which every character is its own place, so that ids say where they come from."""

    unit, size, start, unknown = "place", START + 1, START, None

    @classmethod
    def fit(cls, texts: Iterable[str]) -> "Places":
        return cls()

    def _ids_of(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        return ([ord(character) for character in piece] for piece in pieces)

    def decode(self, encoded: Iterable[int], given: str | None = None) -> str:
        return "".join(map(chr, encoded))

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": "places"}


@contextmanager
def written(lengths: list[int]) -> Iterator[Tokens]:
    ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
    documents = ["".join(map(chr, range(start, stop))) for start, stop in pairwise(ends)]
    with tempfile.TemporaryDirectory() as folder:
        yield write_tokens(Path(folder) / "text", Places(), documents)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    window = draw(st.integers(1, 12))
    random_length = draw(st.booleans())
    return {
        "lengths": draw(st.lists(st.integers(0, 60), min_size=1, max_size=7).filter(any)),
        "batch_size": draw(st.integers(1, 4)),
        "ranks": draw(st.integers(1, 3)),
        "accumulate": draw(st.integers(1, 3)),
        "options": {
            "window": window,
            "stride": None if random_length else draw(st.none() | st.integers(1, window)),
            "shift": False if random_length else draw(st.booleans()),
            "concatenate": draw(st.booleans()),
            "random_length": random_length,
            "seed": draw(st.integers(0, 3)),
        },
    }


# A shift and a stride together, as few of the drawn plans have them: their first window carries another state.
SHIFTED = {
    "lengths": [50],
    "batch_size": 2,
    "ranks": 1,
    "accumulate": 2,
    "options": {"window": 8, "stride": 5, "shift": True, "concatenate": True, "random_length": False, "seed": 1},
}


def stream(tokens: Tokens, plan: StreamPlan | RandomWindowPlan, **options: Any) -> Loader:
    return PlannedLoader(plan, tokens, partial(token_window, start=START), **options)


def loaders(tokens: Tokens, case: dict[str, Any], ranks: int | None = None) -> list[Loader]:
    """One loader a rank, all of the same plan."""
    ranks = ranks or case["ranks"]
    plan = StreamPlan(tokens.lengths, rows=case["batch_size"] * case["ranks"], ranks=ranks, **case["options"])
    return [stream(tokens, plan, rank=rank, accumulate=case["accumulate"]) for rank in range(ranks)]


def equal(one: Window, other: Window) -> bool:
    marks = (torch.zeros_like(each.loss_mask) if each.resets is None else each.resets for each in (one, other))
    tensors = all(torch.equal(a, b) for a, b in zip((*one[:5], next(marks)), (*other[:5], next(marks)), strict=True))
    return tensors and one.carry == other.carry and one.scale == other.scale


def joined_batch(splits: Iterable[Window]) -> Window:
    splits = list(splits)
    tensors = [torch.cat([split[field] for split in splits]) for field in range(5)]
    marks = [split.resets for split in splits if split.resets is not None]
    assert len(marks) in (0, len(splits))
    resets = torch.cat(marks) if marks else None
    return Window(*tensors, carry=splits[0].carry, scale=splits[0].scale / len(splits), resets=resets)


@law
@given(plans())
def test_every_token_is_scored_exactly_once_in_every_epoch(case: dict[str, Any]) -> None:
    with written(case["lengths"]) as tokens:
        streams = loaders(tokens, case)
        for _ in range(2):
            windows = [window for each in streams for window in each]

            loss_mask = torch.cat([window.targets[window.loss_mask] for window in windows])

            assert sorted(loss_mask.tolist()) == list(range(sum(case["lengths"])))


@law
@given(plans())
def test_inputs_are_the_targets_one_step_before(case: dict[str, Any]) -> None:
    with written(case["lengths"]) as tokens:
        begins = {0} if case["options"]["concatenate"] else set(tokens.documents.tolist())

        for loader in loaders(tokens, case):
            for window in loader:
                valid = torch.arange(window.inputs.shape[1]) < window.lengths[:, None]
                for read, wanted in zip(window.inputs[valid].tolist(), window.targets[valid].tolist(), strict=True):
                    assert read == (START if wanted in begins else wanted - 1)
                assert not (window.loss_mask & ~valid).any()
                assert not window.inputs[~valid].any()
                assert not window.targets[~valid].any()


@law
@given(plans())
@example(SHIFTED)
def test_a_row_goes_on_where_its_state_was_carried_from_unless_it_is_reset(case: dict[str, Any]) -> None:
    with written(case["lengths"]) as tokens:
        for loader in loaders(tokens, case):
            following = [None] * case["batch_size"]
            for window in loader:
                for row, length in enumerate(window.lengths.tolist()):
                    if not length:
                        assert not window.reset[row]
                        continue
                    begin = int(window.targets[row, 0])
                    assert window.reset[row] or begin == following[row]
                    following[row] = begin + min(window.carry, length)


@law
@given(plans())
def test_gradients_reach_back_at_least_window_minus_stride_steps(case: dict[str, Any]) -> None:
    with written(case["lengths"]) as tokens:
        window_size, stride = case["options"]["window"], case["options"]["stride"]
        for loader in loaders(tokens, case):
            for window in loader:
                unscored = (window.lengths - window.loss_mask.sum(1))[(window.lengths > 0) & ~window.reset]
                assert (unscored == window_size - (stride or window_size)).all()
                assert window.carry == window.inputs.shape[1] or window.carry <= (stride or window_size)


@law
@given(plans())
def test_documents_that_are_not_joined_begin_at_marks(case: dict[str, Any]) -> None:
    """Every first token of a document has a mark, or begins its row's epoch, and no other token does."""
    case["options"]["concatenate"] = False
    with written(case["lengths"]) as tokens:
        documents = set(tokens.documents.tolist())
        for loader in loaders(tokens, case):
            for window in loader:
                marks = torch.zeros_like(window.loss_mask) if window.resets is None else window.resets.clone()
                marks[:, :1] |= window.reset[:, None]
                for row, length in enumerate(window.lengths.tolist()):
                    begins = [target in documents for target in window.targets[row, :length].tolist()]
                    assert marks[row, :length].tolist() == begins
                    assert not marks[row, length:].any()


@law
@given(st.lists(st.integers(0, 60), min_size=1, max_size=7).filter(any), st.integers(1, 5))
def test_rows_of_whole_documents_are_as_equal_as_can_be(lengths: list[int], rows: int) -> None:
    plan = StreamPlan(lengths, rows=rows, window=10**6, concatenate=False)
    found = plan.window_spec(0, 0).lengths.tolist()
    documents = [n for n in lengths if n]

    cuts = itertools.combinations_with_replacement(range(len(documents) + 1), rows - 1)
    best = min(max(sum(documents[a:b]) for a, b in pairwise((0, *cut, len(documents)))) for cut in cuts)

    assert max(found) == best
    assert sum(found) == sum(documents)


@law
@given(plans())
def test_all_ranks_together_read_what_one_process_reads_with_the_joined_batch(case: dict[str, Any]) -> None:
    with written(case["lengths"]) as tokens:
        several, alone = loaders(tokens, case), loaders(tokens, case, ranks=1)[0]

        assert {len(loader) for loader in several} == {len(alone)}
        together = [joined_batch(splits) for splits in zip(*several, strict=True)]
        windows = list(alone)
        assert len(windows) == len(together) == len(alone)
        for one, other in zip(windows, together, strict=True):
            assert equal(one, other._replace(scale=pytest.approx(other.scale)))


@law
@given(plans())
def test_scaled_losses_sum_to_the_mean_over_all_predictions_of_a_step(case: dict[str, Any]) -> None:
    def loss(window: Window) -> Tensor:
        return window.targets.double().cos()[window.loss_mask].sum()

    with written(case["lengths"]) as tokens:
        accumulate, ranks = case["accumulate"], case["ranks"]
        epoch = list(zip(*loaders(tokens, case), strict=True))
        for first in range(0, len(epoch), accumulate):
            group = epoch[first : first + accumulate]

            # Lightning divides by the batches that are accumulated, also in a short last group; ranks are averaged.
            taken = sum(loss(window) * window.scale / accumulate for batch in group for window in batch) / ranks

            loss_mask = torch.cat([window.targets[window.loss_mask] for batch in group for window in batch])
            torch.testing.assert_close(taken, loss_mask.double().cos().mean(), rtol=0, atol=1e-12)


@law
@given(plans(), st.floats(0, 1))
def test_a_restored_loader_goes_on_with_the_exact_window(case: dict[str, Any], share: float) -> None:
    with written(case["lengths"]) as tokens:
        loader, restored = loaders(tokens, case)[0], loaders(tokens, case)[0]
        num_read = round(share * len(loader))  # 0 and the whole epoch included
        iterator = iter(loader)
        for _ in range(num_read):
            next(iterator)
        state = json.loads(json.dumps(loader.state_dict()))

        restored.load_state_dict(state)

        rest = list(iterator) or list(loader)
        for following in (rest, list(loader)):
            resumed = list(restored)
            assert len(resumed) == len(following)
            assert all(map(equal, following, resumed))


@law
@given(plans(), st.integers(1, 3))
def test_every_epoch_has_as_many_windows(case: dict[str, Any], epochs: int) -> None:
    with written(case["lengths"]) as tokens:
        loader = loaders(tokens, case)[0]

        counts = {sum(1 for _ in loader) for _ in range(epochs)}

        assert counts == {len(loader)}


def test_random_lengths_scatter_around_the_window_and_differ_by_epoch() -> None:
    with written([50_000]) as tokens:
        plan = StreamPlan(tokens.lengths, rows=2, window=70, random_length=True)
        first, second = ([plan.window_spec(epoch, k).lengths[0] for k in range(plan.num_batches)] for epoch in range(2))

    lengths = torch.as_tensor(first[:-1]).double()
    assert first != second
    assert 66 < lengths.mean() < 70
    assert 3 < lengths[lengths > 50].std() < 7
    assert 0.01 < (lengths < 50).double().mean() < 0.12


def test_a_shift_moves_the_borders_from_epoch_to_epoch() -> None:
    with written([1000]) as tokens:
        loader = stream(tokens, StreamPlan(tokens.lengths, rows=1, window=20, shift=True))

        firsts = {int(next(iter(epoch)).lengths[0]) for epoch in (list(loader) for _ in range(30))}

    assert len(firsts) > 5
    assert firsts <= set(range(1, 21))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "at least 1"),
        ({"window": 4, "stride": 5}, "stride must be at most window"),
        ({"window": 4, "stride": 0}, "at least 1"),
        ({"window": 4, "stride": 2, "random_length": True}, "remove shift"),
        ({"window": 4, "shift": True, "random_length": True}, "remove shift"),
    ],
)
def test_a_plan_without_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        StreamPlan([10], rows=1, **options)


def test_a_position_from_another_plan_is_refused() -> None:
    with written([40]) as tokens:
        loader = stream(tokens, StreamPlan([40], rows=1, window=10))

        with pytest.raises(ValueError, match="after batch 5 of an epoch of 4"):
            loader.load_state_dict({"epoch": 0, "position": 5})


def test_a_plan_for_another_text_is_refused() -> None:
    with written([40]) as tokens, pytest.raises(ValueError, match="the plan reads 41 tokens, there are 40"):
        list(stream(tokens, StreamPlan([41], rows=1, window=10)))


def test_reading_keeps_no_tensor_alive() -> None:
    def living() -> int:
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    with written([50_000]) as tokens:
        loader = stream(tokens, StreamPlan([50_000], rows=8, window=16, shift=True))
        iterator = iter(loader)
        window = next(iterator)
        before = living()

        for window in islice(iterator, 200):  # noqa: B007 - the last one stays alive, as the first did
            pass

        assert living() == before
        assert window.inputs.shape == (8, 16)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_random_windows_are_the_same_for_any_number_of_processes(ranks: int) -> None:
    with written([500]) as tokens:
        alone = next(iter(stream(tokens, RandomWindowPlan(500, length=20, count=10, batch_size=10))))
        plan = RandomWindowPlan(500, length=20, count=10, batch_size=2, ranks=ranks)
        streams = [stream(tokens, plan, rank=rank) for rank in range(ranks)]

        together = [window for splits in zip(*streams, strict=True) for window in splits]

    lengths = torch.cat([window.lengths for window in together])
    targets = torch.cat([window.targets for window in together])
    inputs = torch.cat([window.inputs for window in together])
    loss_mask = torch.cat([window.loss_mask for window in together])
    assert torch.equal(targets[lengths > 0], alone.targets)
    assert torch.equal(inputs[lengths > 0] + 1, targets[lengths > 0])
    assert loss_mask.sum() == 10 * 20
    assert alone.reset.all()
    assert len({len(each) for each in streams}) == 1


def test_random_windows_need_a_text_longer_than_one() -> None:
    with pytest.raises(ValueError, match="needs 21 tokens, the text has 20"):
        RandomWindowPlan(20, length=20, count=1, batch_size=1)


class Recorder(LightningModule):
    """Notes what it is given; its weight becomes minus the number of steps if gradients are means."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, int]] = []

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        self.seen.append((int(batch.targets[0, 0]), int(batch.lengths[0])))
        return self.weight * batch.loss_mask.sum() * batch.scale

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class SaveAt(Callback):
    """Saves at the end of the batch that makes this step."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


def fit(tokens: Tokens, *callbacks: Callback, max_steps: int, accumulate: int = 1, **options: Any) -> Recorder:
    plan = StreamPlan(tokens.lengths, rows=1, window=10, shift=True)
    limit = options.get("limit_train_batches", 1.0)
    module = Recorder()
    ckpt_path = options.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        accumulate_grad_batches=accumulate,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(
        module,
        stream(tokens, plan, accumulate=accumulate, limit=limit),
        stream(tokens, plan, restart=True),
        ckpt_path=ckpt_path,
        weights_only=True,
    )
    return module


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("limit", [1.0, 3])
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_trainer_resumes_at_the_exact_window(tmp_path: Path, stop: int, limit: int | float) -> None:
    options = {"accumulate": 2, "limit_train_batches": limit}
    with written([55]) as tokens:
        whole = fit(tokens, SaveAt(stop, tmp_path / "ckpt"), max_steps=8, **options)
        head = fit(tokens, max_steps=stop, **options)

        tail = fit(tokens, max_steps=8, ckpt_path=tmp_path / "ckpt", **options)

    assert head.seen + tail.seen == whole.seen
    # A step's gradient is the mean of 1 over its predictions, also in the short last group of an epoch.
    assert whole.weight.item() == pytest.approx(-8, abs=1e-5)
    assert tail.weight.item() == pytest.approx(-8, abs=1e-5)


class SaveAtEnd(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("validation", [0.0, 1.0])
def test_a_trainer_goes_on_from_the_end_of_an_epoch(tmp_path: Path, validation: float) -> None:
    options = {"limit_val_batches": validation}
    with written([55]) as tokens:
        whole = fit(tokens, max_steps=15, **options)
        head = fit(tokens, SaveAtEnd(tmp_path / "ckpt"), max_steps=6, **options)

        tail = fit(tokens, max_steps=15, ckpt_path=tmp_path / "ckpt", **options)

    assert head.seen + tail.seen == whole.seen
    assert tail.weight.item() == pytest.approx(-15, abs=1e-5)


def test_a_loader_that_restarts_begins_anew_after_it_was_left_early() -> None:
    with written([55]) as tokens:
        loader = stream(tokens, StreamPlan([55], rows=1, window=10, shift=True), restart=True)
        first = list(islice(loader, 3))

        again = list(loader)

    assert all(map(equal, first, again))
    assert len(again) == len(loader)
