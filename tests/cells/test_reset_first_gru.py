"""The published GRU against its equations, and beside torch's."""

import torch

from unrolled import GRUCell, HiddenState, ResetFirstGRUCell


def test_one_step_is_its_equations(generator: torch.Generator) -> None:
    cell = ResetFirstGRUCell(3, 5).double()
    x, h = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5))

    output, state = cell(x, HiddenState(h))

    p = (x @ cell.weight_ih.T + cell.bias_ih).chunk(3, dim=1)
    (u_r, u_z, u_n), (c_r, c_z, c_n) = cell.weight_hh.chunk(3), cell.bias_hh.chunk(3)
    r = torch.sigmoid(p[0] + h @ u_r.T + c_r)
    z = torch.sigmoid(p[1] + h @ u_z.T + c_z)
    n = torch.tanh(p[2] + (r * h) @ u_n.T + c_n)
    torch.testing.assert_close(output, (1 - z) * n + z * h, rtol=0, atol=1e-14)
    assert state.h is output


def test_dropped_units_are_missing_in_both_products(generator: torch.Generator) -> None:
    cell = ResetFirstGRUCell(3, 5, recurrent_dropout=0.5).double()
    x, h = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5))
    noise = cell.noise(4, like=x)
    assert noise is not None
    assert noise.state_mask is not None

    output, _ = cell.step(cell.project(x), HiddenState(h), noise)

    p, seen = (x @ cell.weight_ih.T + cell.bias_ih).chunk(3, dim=1), h * noise.state_mask
    (u_r, u_z, u_n), (c_r, c_z, c_n) = cell.weight_hh.chunk(3), cell.bias_hh.chunk(3)
    r = torch.sigmoid(p[0] + seen @ u_r.T + c_r)
    z = torch.sigmoid(p[1] + seen @ u_z.T + c_z)
    n = torch.tanh(p[2] + (r * seen) @ u_n.T + c_n)
    torch.testing.assert_close(output, (1 - z) * n + z * h, rtol=0, atol=1e-14)


def test_the_two_conventions_agree_where_the_reset_gate_is_open(generator: torch.Generator) -> None:
    cell, other = ResetFirstGRUCell(3, 5).double(), GRUCell(3, 5).double()
    other.load_state_dict(cell.state_dict())
    x, h = (torch.randn(4, size, dtype=torch.float64, generator=generator) for size in (3, 5))
    assert not torch.allclose(cell(x, HiddenState(h))[0], other(x, HiddenState(h))[0])

    for one in (cell, other):
        torch.nn.init.constant_(one.bias_ih[:5], 100.0)

    torch.testing.assert_close(cell(x, HiddenState(h))[0], other(x, HiddenState(h))[0], rtol=0, atol=1e-13)
