"""A state that is handed in is one of the network's own, or refused alike by everything that takes one."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AdditiveAttention,
    AttentionPooling,
    AutoregressiveDecoder,
    BahdanauWiring,
    CategoricalHead,
    Cell,
    ClockworkCell,
    Encoded,
    FeatureEncoder,
    GatedFeedbackCell,
    GRUCell,
    LocationAttention,
    LSTMCell,
    LSTMState,
    MaxPooling,
    MeanPooling,
    ProjectedLSTMCell,
    Recurrent,
    RecurrentEncoder,
    SequenceClassifier,
    ShapeError,
    TopDownWiring,
    unroll,
)
from unrolled.generation import EnsembleDecoder
from unrolled.models.wide import WidePath
from unrolled.state import leaves, map_state, rebuild

ROWS, TIME, INPUT, HIDDEN = 3, 20, 4, 6
Taker = Callable[[Any], Any]


def spoilt_leaves(leaf: Tensor) -> Iterator[Any]:
    """What must not stand in the place of a tensor of the state."""
    yield torch.cat([leaf, leaf[..., :1]], dim=-1)
    if leaf.dim() > 1 and leaf.shape[-1] > 1:  # broadcasting would hide it
        yield leaf[..., :1]
    yield leaf[:1]
    yield leaf.unsqueeze(0)
    yield leaf.float() if leaf.dtype == torch.float64 else leaf.double()
    yield leaf.bfloat16()
    if leaf.dtype != torch.int64:
        yield leaf.long()
    yield None
    yield leaf.tolist()


def spoilt(state: Any) -> Iterator[Any]:
    """Everything that differs from a state in one place: a tensor, or a tuple."""
    if isinstance(state, Tensor):
        yield from spoilt_leaves(state)
        return
    if state is None:
        yield torch.zeros(ROWS, 1)
        return
    yield list(state)
    yield state[0]
    yield (*state, state[0])
    if hasattr(state, "_fields"):
        yield tuple(state)
    for place, child in enumerate(state):
        for wrong in spoilt(child):
            children = (*state[:place], wrong, *state[place + 1 :])
            yield type(state)(*children) if hasattr(state, "_fields") else children


def recurrent(cell: Any, backend: str = "auto", **options: Any) -> tuple[Taker, Any]:
    network = Recurrent(cell, INPUT, HIDDEN, 2, backend=backend, **options)
    inputs = torch.randn(ROWS, TIME, INPUT)
    return partial(network, inputs), network.initial_state(ROWS, like=inputs)


def stepped() -> tuple[Taker, Any]:
    network = Recurrent(GRUCell, INPUT, HIDDEN, 2)
    inputs = torch.randn(ROWS, INPUT)
    return partial(network.step, inputs), network.initial_state(ROWS, like=inputs)


def unrolled(cell: Cell, backend: str) -> tuple[Taker, Any]:
    inputs = torch.randn(ROWS, TIME, INPUT)
    return partial(unroll, cell, inputs, backend=backend), cell.initial_state(ROWS, like=inputs)


def one_step() -> tuple[Taker, Any]:
    cell, inputs = LSTMCell(INPUT, HIDDEN), torch.randn(ROWS, INPUT)
    return partial(cell, inputs), cell.initial_state(ROWS, like=inputs)


def encoded() -> Encoded:
    values = torch.randn(ROWS, 5, HIDDEN)
    return Encoded(values, None, values.mean(1))


def decoder(make: Callable[[], Any], *, step: bool, source: bool = True) -> tuple[Taker, Any]:
    network = make().eval()
    tokens = torch.zeros(ROWS, 2, dtype=torch.int64)
    state, memory = network.start(ROWS, encoded() if source else None)
    state = map_state(torch.detach, state)
    run = network.step if step else network
    return lambda given: run(tokens[:, 0] if step else tokens, given, memory), state


def language() -> AutoregressiveDecoder:
    return AutoregressiveDecoder.of_tokens(7, INPUT, partial(Recurrent, LSTMCell, hidden_size=HIDDEN))


def attentive(attention: Any = AdditiveAttention, **options: Any) -> AutoregressiveDecoder:
    core = partial(Recurrent, GRUCell, hidden_size=HIDDEN)
    return AutoregressiveDecoder.of_tokens(7, INPUT, core, attention, HIDDEN, **options)


def classifying(pooling: Any, **options: Any) -> tuple[Taker, Any]:
    encoder = FeatureEncoder(INPUT, partial(Recurrent, LSTMCell, hidden_size=HIDDEN), bidirectional=False, **options)
    network = SequenceClassifier(encoder, partial(CategoricalHead, num_classes=2), pooling).eval()
    return partial(network.step, torch.randn(ROWS, INPUT)), network.initial_state(ROWS)


def classifying_words() -> tuple[Taker, Any]:
    encoder = RecurrentEncoder.of_tokens(7, INPUT, partial(Recurrent, GRUCell, hidden_size=HIDDEN), bidirectional=False)
    wide = partial(WidePath, vocabulary_size=7)
    network = SequenceClassifier(encoder, partial(CategoricalHead, num_classes=2), MeanPooling, wide=wide).eval()
    return partial(network.step, torch.zeros(ROWS, dtype=torch.int64)), network.initial_state(ROWS)


def encoding() -> tuple[Taker, Any]:
    core = partial(Recurrent, GRUCell, hidden_size=HIDDEN)
    encoder = RecurrentEncoder.of_tokens(7, INPUT, core, bidirectional=False).eval()
    return partial(encoder.step, torch.zeros(ROWS, dtype=torch.int64)), encoder.initial_state(ROWS, like=torch.zeros(1))


TAKERS: dict[str, Callable[[], tuple[Taker, Any]]] = {
    **{f"lstm by {name}": partial(recurrent, LSTMCell, name) for name in ("auto", "loop", "fused", "compiled")},
    "both directions": partial(recurrent, LSTMCell, bidirectional=True),
    "projected": partial(recurrent, partial(ProjectedLSTMCell, projection_size=2)),
    "clockwork": partial(recurrent, ClockworkCell),
    "gated feedback": partial(recurrent, GatedFeedbackCell),
    **{f"unroll by {name}": lambda name=name: unrolled(GRUCell(INPUT, HIDDEN), name) for name in ("fused", "compiled")},
    "step": stepped,
    "cell": one_step,
    **{f"language {step=}": partial(decoder, language, step=step, source=False) for step in (False, True)},
    **{f"attentive {step=}": partial(decoder, attentive, step=step) for step in (False, True)},
    "coverage": partial(decoder, partial(attentive, partial(AdditiveAttention, coverage=True)), step=True),
    "location": partial(decoder, partial(attentive, partial(LocationAttention, kernel_size=3)), step=False),
    "at once": partial(decoder, partial(attentive, input_feeding=False), step=False),
    "before": partial(decoder, partial(attentive, wiring=BahdanauWiring), step=True),
    "between": partial(decoder, partial(attentive, wiring=TopDownWiring), step=True),
    "ensemble": partial(decoder, lambda: EnsembleDecoder([attentive(), attentive()]), step=True),
    **{f"{kind.__name__}": partial(classifying, kind) for kind in (MeanPooling, MaxPooling, AttentionPooling)},
    "words": classifying_words,
    "bands": partial(classifying, MeanPooling, conv_channels=2, conv_frames=3),
    "encoder": encoding,
}


@pytest.mark.parametrize("name", TAKERS)
def test_any_difference_from_the_networks_own_state_is_refused(name: str) -> None:
    take, state = TAKERS[name]()
    take(state)

    wrong = list(spoilt(state))
    assert len(wrong) > 5
    for given in wrong:
        with pytest.raises(ValueError, match="stat") as refusal:
            take(given)
        assert str(refusal.value)


def test_the_error_names_the_place_what_is_there_and_the_remedy() -> None:
    network, inputs = Recurrent(LSTMCell, INPUT, HIDDEN, 2), torch.randn(ROWS, TIME, INPUT)
    h = torch.zeros(ROWS, HIDDEN)
    right = LSTMState(h, h)

    with pytest.raises(ShapeError, match=r"^state\[1\]\.c has the shape \(3, 4096\), expected \(3, 6\) for a batch"):
        network(inputs, (right, LSTMState(h, torch.zeros(ROWS, 4096))))
    with pytest.raises(ValueError, match=r"^state\[0\] is a tuple of 2, expected LSTMState\(h, c\); write LSTMState\("):
        network(inputs, ((h, h), right))
    with pytest.raises(ValueError, match=r"^state\[0\]\.h is torch\.float64, expected torch\.float32; convert it with"):
        network(inputs, (LSTMState(h.double(), h), right))
    with pytest.raises(ValueError, match=r"^state\[0\]\.h is on meta, the inputs on cpu; move it with \.to\('cpu'\)"):
        network(inputs, (LSTMState(h.to("meta"), h), right))
    with pytest.raises(ValueError, match=r"^state is a tuple of 1, expected a tuple of 2$"):
        network(inputs, (right,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_state_may_stay_unrounded_where_products_are_rounded(dtype: torch.dtype) -> None:
    network, inputs = Recurrent(GRUCell, INPUT, HIDDEN), torch.randn(ROWS, TIME, INPUT)
    state = map_state(lambda leaf: leaf.to(dtype), network.initial_state(ROWS, like=inputs))

    with torch.autocast("cpu", torch.bfloat16):
        _, after = network(inputs, state)
        network(inputs, after)
        with pytest.raises(ValueError, match=r"torch\.float64"):
            network(inputs, map_state(torch.Tensor.double, state))


def test_a_dtype_that_a_cell_asks_for_by_name_is_its_own() -> None:
    class Counting(Cell[tuple[Tensor, Tensor]]):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size, output_size=hidden_size)
            self.linear = torch.nn.Linear(input_size, hidden_size)

        def initial_state(self, batch: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
            return like.new_zeros(batch, self.hidden_size), like.new_zeros(batch, dtype=torch.int64)

        def project(self, inputs: Tensor) -> Tensor:
            return self.linear(inputs)

        def step(self, projected: Tensor, state: Any, noise: Any = None) -> tuple[Tensor, Any]:
            h, count = state
            return projected + h, (projected + h, count + 1)

    for dtype in (torch.float32, torch.float64):
        network, inputs = Recurrent(Counting, INPUT, HIDDEN).to(dtype), torch.randn(ROWS, TIME, INPUT, dtype=dtype)
        _, state = network(inputs)
        _, again = network(inputs, state)
        assert leaves(again)[1].tolist() == [2 * TIME] * ROWS
        with pytest.raises(ValueError, match=r"^state\[0\]\[1\] is torch\.int32, expected torch\.int64"):
            network(inputs, rebuild(state, [leaves(state)[0], leaves(state)[1].int()]))
