"""The choice between backends, and that it never changes what is computed."""

import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import Cell, ElmanCell, GRUCell, LSTMCell, Recurrent, unroll
from unrolled.backends import BACKENDS, choose
from unrolled.state import leaves


@pytest.fixture
def inputs(generator: torch.Generator) -> Tensor:
    return torch.randn(4, 7, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("make", [LSTMCell, GRUCell, ElmanCell, partial(ElmanCell, activation="relu")])
@pytest.mark.parametrize("options", [{}, {"weight_drop": 0.5}])
@pytest.mark.parametrize("lengths", [None, [7, 0, 1, 4]])
@pytest.mark.parametrize("training", [True, False])
def test_loop_and_fused_agree_on_everything_that_fused_takes(
    make: Any, options: dict[str, float], lengths: list[int] | None, training: bool, inputs: Tensor
) -> None:
    cell = make(3, 5, **options).double().train(training)
    given = None if lengths is None else torch.tensor(lengths)

    results = []
    for backend in ("loop", "fused"):
        torch.manual_seed(1)  # the same weights dropped
        outputs, state = unroll(cell, inputs, lengths=given, backend=backend)
        total = outputs.square().sum() + sum(leaf.sum() for leaf in leaves(state))
        results.append([outputs, *leaves(state), *torch.autograd.grad(total, list(cell.parameters()))])

    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-13)


def test_dropped_weights_change_with_the_seed_and_not_within_an_unroll(inputs: Tensor) -> None:
    cell = LSTMCell(3, 5, weight_drop=0.5).double()
    torch.manual_seed(1)
    outputs, _ = unroll(cell, inputs)

    assert not torch.equal(unroll(cell, inputs)[0], outputs)
    torch.manual_seed(1)
    assert torch.equal(unroll(cell, inputs)[0], outputs)


@pytest.mark.parametrize("make", [LSTMCell, GRUCell, ElmanCell])
def test_recurrent_dropout_drops_the_same_at_all_steps(make: Any, inputs: Tensor) -> None:
    # given the masks that each step is handed
    cell = make(3, 5, recurrent_dropout=0.5).double()
    seen: list[Tensor] = []
    step = cell.step
    cell.step = lambda projected, state, noise: (seen.append(noise.state_mask), step(projected, state, noise))[1]

    unroll(cell, inputs)
    unroll(cell, inputs)

    # then they are one per unroll
    assert len(seen) == 14
    assert all(torch.equal(mask, seen[0]) for mask in seen[:7])
    assert all(torch.equal(mask, seen[7]) for mask in seen[7:])
    assert not torch.equal(seen[0], seen[7])


@pytest.mark.parametrize("make", [LSTMCell, partial(LSTMCell, weight_drop=0.5)])
def test_auto_takes_the_fused_kernel_where_it_is_the_fastest_and_says_so(make: Any, inputs: Tensor) -> None:
    choice = choose("auto", make(3, 5), inputs)

    assert choice.backend == "fused"
    assert "one kernel runs all steps of LSTMCell" in choice.reason


@pytest.mark.parametrize(
    "make", [GRUCell, ElmanCell, partial(ElmanCell, activation="softsign"), partial(LSTMCell, recurrent_dropout=0.5)]
)
def test_auto_compiles_what_has_no_fast_kernel_on_a_cpu_and_says_so(make: Any, inputs: Tensor) -> None:
    choice = choose("auto", make(3, 5).double(), inputs.repeat(1, 3, 1))

    assert choice.backend == "compiled"
    assert "compiled for this machine" in choice.reason


def test_auto_compiles_for_ragged_batches_and_many_steps_but_not_for_a_few(inputs: Tensor) -> None:
    def chosen(cell: Cell, steps: int, ragged: bool = False) -> str:
        return choose("auto", cell.double(), inputs[:, :1].expand(4, steps, 3), ragged=ragged).backend

    assert chosen(LSTMCell(3, 5), 16, ragged=True) == "compiled"
    assert [chosen(LSTMCell(3, 5), steps) for steps in (499, 500)] == ["fused", "compiled"]
    assert [chosen(GRUCell(3, 5), steps) for steps in (15, 16)] == ["fused", "compiled"]
    softsign = ElmanCell(3, 5, activation="softsign")
    assert [chosen(softsign, steps) for steps in (5, 6)] == ["loop", "compiled"]
    assert "5 steps are too few" in choose("auto", softsign, inputs[:, :5]).reason


def test_what_auto_chooses_for_a_layer_follows_its_lengths(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Recurrent(LSTMCell, 3, 5).double()
    long, lengths = inputs.repeat(1, 3, 1), torch.tensor([21, 3, 0, 9])
    ran: list[str] = []
    for backend in BACKENDS.values():
        run = backend.run
        monkeypatch.setattr(backend, "run", lambda *a, run=run, name=backend.name: (ran.append(name), run(*a))[1])

    network(long)
    network(long, lengths=lengths)

    assert ran == ["fused", "compiled"]
    assert [network.backend_choices(long, ragged=ragged)[0].backend for ragged in (False, True)] == ran


class DoubledLSTMCell(LSTMCell):
    """A subclass that computes something else."""

    def step(self, *arguments: Any) -> Any:
        h, state = super().step(*arguments)
        return 2 * h, state


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (DoubledLSTMCell(3, 5), "only LSTMCell, GRUCell and ElmanCell, not DoubledLSTMCell"),
        (ElmanCell(3, 5, activation="sigmoid"), "the activations tanh and relu, not sigmoid"),
        (ElmanCell(3, 5, activation="softsign"), "the activations tanh and relu, not softsign"),
        (LSTMCell(3, 5, recurrent_dropout=0.25), "recurrent_dropout=0.25"),
        (GRUCell(3, 5, recurrent_dropout=0.25, weight_drop=0.5), "recurrent_dropout=0.25"),
    ],
)
def test_the_fused_kernel_refuses_what_it_lacks_and_says_why(cell: Cell, reason: str, inputs: Tensor) -> None:
    refusal = BACKENDS["fused"].refuses(cell, inputs)

    assert refusal is not None
    assert reason in refusal
    message = f"the backend 'fused' cannot run this cell: {refusal}; use 'auto' or 'loop'"
    with pytest.raises(ValueError, match=re.escape(message)):
        unroll(cell.double(), inputs, backend="fused")


def test_auto_takes_the_loop_where_all_others_refuse_and_says_why(inputs: Tensor) -> None:
    choice = choose("auto", DoubledLSTMCell(3, 5).double(), inputs)

    assert choice.backend == "loop"
    assert "not DoubledLSTMCell; DoubledLSTMCell overrides step" in choice.reason


def test_a_subclass_is_never_silently_replaced(inputs: Tensor) -> None:
    cell = DoubledLSTMCell(3, 5).double()
    plain = LSTMCell(3, 5).double()
    plain.load_state_dict(cell.state_dict())

    torch.testing.assert_close(unroll(cell, inputs)[0], 2 * unroll(plain, inputs)[0], rtol=0, atol=1e-14)


def test_a_parametrized_cell_runs_as_one_with_the_weights_that_it_computes(inputs: Tensor) -> None:
    cell = nn.utils.parametrizations.spectral_norm(LSTMCell(3, 5).double(), "weight_hh").eval()

    assert choose("auto", cell, inputs).backend == "fused"  # pyright: ignore[reportArgumentType]
    expected = unroll(cell, inputs, backend="loop")[0]  # pyright: ignore[reportArgumentType]
    for backend in ("fused", "compiled"):
        outputs = unroll(cell, inputs, backend=backend)[0]  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-14)


def test_recurrent_dropout_is_no_obstacle_in_evaluation_mode(inputs: Tensor) -> None:
    cell = LSTMCell(3, 5, recurrent_dropout=0.5).double()

    assert choose("auto", cell.train(), inputs).backend == "compiled"
    assert choose("auto", cell.eval(), inputs).backend == "fused"


def test_what_auto_names_is_what_runs(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for backend in BACKENDS.values():
        run = backend.run
        monkeypatch.setattr(backend, "run", lambda *a, run=run, name=backend.name: (ran.append(name), run(*a))[1])

    for cell in (LSTMCell(3, 5), DoubledLSTMCell(3, 5), ElmanCell(3, 5, activation="sigmoid")):
        unroll(cell.double(), inputs)

    assert ran == ["fused", "loop", "compiled"]


@pytest.mark.parametrize("where", ["unroll", "network"])
def test_an_unknown_backend_is_answered_with_the_nearest(where: str, inputs: Tensor) -> None:
    with pytest.raises(ValueError, match="unknown backend 'fuse', did you mean 'fused'"):
        _ = (
            unroll(LSTMCell(3, 5), inputs, backend="fuse")
            if where == "unroll"
            else Recurrent(LSTMCell, 3, 5, backend="fuse")
        )


@pytest.mark.parametrize("make", [LSTMCell, GRUCell, ElmanCell])
@pytest.mark.parametrize("backend", ["loop", "fused", "compiled"])
def test_mixed_precision_comes_close_to_single(make: Any, backend: str, generator: torch.Generator) -> None:
    cell = make(3, 5)
    inputs = torch.randn(4, 7, 3, generator=generator)
    lengths = torch.tensor([7, 0, 1, 4])
    expected, final = unroll(cell, inputs, lengths=lengths)

    with torch.autocast("cpu", torch.bfloat16):
        if backend == "fused" and (why := BACKENDS["fused"].refuses(cell, inputs)):
            pytest.skip(why)  # torch's own kernel takes no bfloat16 on some processors
        outputs, state = unroll(cell, inputs, lengths=lengths, backend=backend)

    # bfloat16 keeps 8 bits, and errors add up over 7 steps.
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=0.03)
    torch.testing.assert_close([leaf.float() for leaf in leaves(state)], leaves(final), rtol=0, atol=0.03)


def test_where_torchs_lstm_fails_under_autocast_auto_takes_another(inputs: Tensor) -> None:
    cell, plain = LSTMCell(3, 5), inputs.float()
    with torch.autocast("cpu", torch.bfloat16):
        try:
            nn.LSTM(3, 5, batch_first=True)(plain)
            able = True
        except RuntimeError:
            able = False
        why = BACKENDS["fused"].refuses(cell, plain)
        outputs, _ = unroll(cell, plain)

    assert (why is None) == able
    assert outputs.isfinite().all()
    assert BACKENDS["fused"].refuses(cell, plain) is None  # without autocast


def test_torch_compile_knows_whether_torchs_lstm_runs_under_autocast(inputs: Tensor) -> None:
    cell, plain = LSTMCell(3, 5), inputs.float()

    def run(values: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return unroll(cell, values)[0]

    expected = run(plain)
    compiled: Any = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(plain), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("options", [{}, {"weight_drop": 0.5}])
def test_both_directions_in_one_call_are_two_calls(options: dict[str, float], inputs: Tensor) -> None:
    def results(backend: str) -> list[Tensor]:
        torch.manual_seed(1)
        network = Recurrent(partial(LSTMCell, **options), 3, 5, 2, bidirectional=True, backend=backend).double()
        start = network.initial_state(4, like=inputs)
        for at, leaf in enumerate(leaves(start)):
            leaf.copy_(torch.linspace(-1.0, 1.0, leaf.numel()).view(leaf.shape) * (at + 1))
        outputs, final = network(inputs, start)
        total = outputs.square().sum() + sum(leaf.sum() for leaf in leaves(final))
        return [outputs, *leaves(final), *torch.autograd.grad(total, list(network.parameters()))]

    torch.testing.assert_close(results("fused"), results("loop"), rtol=0, atol=1e-12)


def test_both_directions_of_an_lstm_are_one_call(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "flip")  # nothing is turned round
    calls: list[bool] = []
    lstm = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda *a: (calls.append(a[-2]), lstm(*a))[1])

    Recurrent(LSTMCell, 3, 5, bidirectional=True).double()(inputs)

    assert calls == [True]
