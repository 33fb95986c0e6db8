"""Truncated backpropagation over frames: a cue at a document's first frame, asked for at every step."""

import pytest
import torch
from torch import Tensor, nn

from unrolled import GRUCell, Recurrent
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.data.plans import StreamPlan
from unrolled.training.data.streams import Frames, Window, frame_window
from unrolled.training.tasks.state_store import StateStore

DOCUMENT, WINDOW, ROWS = 23, 5, 16


def cues(documents: int, seed: int) -> Frames:
    """Documents whose first frame shows a sign beside noise, which is the target of each of their steps."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (documents,), generator=generator).float() * 2 - 1
    inputs = torch.randn(documents, DOCUMENT, 2, generator=generator)
    inputs[:, :, 0] = 0
    inputs[:, 0, 0] = signs
    targets = signs[:, None].repeat(1, DOCUMENT)
    return Frames(inputs.flatten(0, 1), targets.flatten(), [DOCUMENT] * documents)


class Tagger(nn.Module):
    """A number for each step; the state goes on from window to window, or is zero in each."""

    def __init__(self, *, carried: bool) -> None:
        super().__init__()
        self.core, self.head = Recurrent(GRUCell, 2, 24), nn.Linear(24, 1)
        self.carried, self.states = carried, StateStore()

    def forward(self, window: Window) -> Tensor:
        initial = self.core.initial_state(len(window.inputs), like=window.inputs)
        state = self.states.take("train", initial, window.reset) if self.carried else initial
        carry = window.carry
        marks = torch.zeros_like(window.loss_mask) if window.resets is None else window.resets
        first, second = marks[:, :carry], marks[:, carry:]
        outputs, state = self.core(window.inputs[:, :carry], state, window.lengths.clamp(max=carry), first)
        self.states.put("train", state)
        if carry < window.inputs.shape[1]:
            rest, _ = self.core(window.inputs[:, carry:], state, (window.lengths - carry).clamp(min=0), second)
            outputs = torch.cat([outputs, rest], 1)
        return self.head(outputs)[..., 0]


def loader(frames: Frames, *, shift: bool = True, **options: int) -> PlannedLoader[Frames, object, Window]:
    plan = StreamPlan(frames.lengths, rows=ROWS, window=WINDOW, concatenate=False, shift=shift, **options)
    return PlannedLoader(plan, frames, frame_window)  # type: ignore[arg-type]


def error_two_windows_later(*, carried: bool, steps: int) -> float:
    """The share of wrong signs two windows after the cue and later, over the last steps of training."""
    torch.manual_seed(0)
    frames, tagger = cues(320, seed=1), Tagger(carried=carried)
    since = torch.arange(DOCUMENT).repeat(320)
    places = Frames(frames.inputs, since, frames.lengths)
    optimizer = torch.optim.Adam(tagger.parameters(), lr=5e-3)
    wrong, asked, done = 0, 0, 0
    signs, positions = loader(frames), loader(places)
    while done < steps:
        for window, place in zip(signs, positions, strict=True):
            predicted = tagger(window)
            loss = (predicted - window.targets)[window.loss_mask].square().sum() * window.scale
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done > steps * 3 // 4:
                late = window.loss_mask & (place.targets >= 2 * WINDOW)
                wrong += int(((predicted.sign() != window.targets) & late).sum())
                asked += int(late.sum())
    return wrong / asked


def test_a_cue_is_remembered_over_windows_with_a_carried_state_alone() -> None:
    assert error_two_windows_later(carried=True, steps=600) < 0.02
    assert 0.4 < error_two_windows_later(carried=False, steps=200) < 0.6


@pytest.mark.parametrize("options", [{}, {"stride": 2}])
def test_windows_of_packed_documents_predict_what_whole_documents_do(options: dict[str, int]) -> None:
    """Every frame counts once, and marks and carried states make windows equal to separate documents."""
    frames = cues(40, seed=2)
    tagger = Tagger(carried=True).double()
    frames = Frames(frames.inputs.double(), torch.arange(len(frames)), frames.lengths)
    found = torch.zeros(len(frames), dtype=torch.float64)
    counts = torch.zeros(len(frames), dtype=torch.int64)

    for window in loader(frames, **options):
        predicted = tagger(window)
        counts[window.targets[window.loss_mask]] += 1
        found[window.targets[window.loss_mask]] = predicted[window.loss_mask].detach()

    whole = tagger.head(tagger.core(frames.inputs.view(40, DOCUMENT, 2))[0])[..., 0].flatten()
    assert counts.eq(1).all()
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)


def test_frames_and_targets_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="3 frames and 2 targets of documents with 3 frames"):
        Frames(torch.zeros(3, 1), torch.zeros(2), [3])
