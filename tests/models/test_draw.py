"""DRAW: its steps from torch.nn's cells, its bound from torch.distributions and importance sampling, its gradients."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from unrolled import DRAW, FeedForward, GRUCell, LSTMCell, Recurrent, ShapeError
from unrolled.inspection import record

CORE: Any = partial(Recurrent, LSTMCell, hidden_size=6)
ATTENTION: list[dict[str, Any]] = [
    {"read_size": None, "write_size": None},
    {"read_size": 2, "write_size": 3},
    {"read_size": 2, "write_size": None},
    {"read_size": None, "write_size": 1},
]


def network(core: Any = CORE, image_size: tuple[int, int] = (5, 4), **options: Any) -> DRAW:
    torch.manual_seed(0)
    made = DRAW(image_size, core, 3, 4, **options).double().eval()
    with torch.no_grad():  # the state before the first glimpse counts, too
        made.initial_canvas.normal_()
        made.initial_output.normal_()
    return made


def images(generator: torch.Generator, batch: int = 3, channels: int = 1) -> Tensor:
    return torch.rand(batch, channels, 5, 4, generator=generator, dtype=torch.float64).round()


def noise(generator: torch.Generator, batch: int = 3, glimpses: int = 4) -> Tensor:
    return torch.randn(batch, glimpses, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("options", ATTENTION)
def test_its_steps_are_those_of_the_paper(options: dict[str, Any], generator: torch.Generator) -> None:
    made, x, eps = network(**options, channels=3), images(generator, channels=3), noise(generator)
    cells: list[nn.LSTMCell] = []
    for core in (made.encoder, made.decoder):
        cell = nn.LSTMCell(core.input_size, 6).double()
        cell.load_state_dict(core.cells[0].state_dict())
        cells.append(cell)
    encoder, decoder = cells

    found = made(x, eps)

    canvas = made.initial_canvas.expand(3, -1, -1, -1)
    h_dec = made.initial_output.expand(3, -1)
    enc, dec = ((torch.zeros(3, 6).double(), torch.zeros(3, 6).double()) for _ in range(2))
    for t in range(4):
        error = x - torch.sigmoid(canvas)
        if made.reader is None:
            read = torch.cat([x.flatten(1), error.flatten(1)], 1)
        else:
            grid = made.reader(h_dec)
            read = torch.cat([grid.read(x).flatten(1), grid.read(error).flatten(1)], 1)
        enc = encoder(torch.cat([read, h_dec], 1), enc)
        mean, log_deviation = made.posterior(enc[0]).split(3, 1)
        z = mean + log_deviation.exp() * eps[:, t]
        dec = decoder(z, dec)
        h_dec = dec[0]
        patch = made.patch(h_dec)
        if made.writer is None:
            canvas = canvas + patch.view(3, 3, 5, 4)
        else:
            canvas = canvas + made.writer(h_dec).write(patch.view(3, 3, made.writer.size, made.writer.size))
        torch.testing.assert_close(found[t].canvas, canvas, rtol=0, atol=1e-12)
        torch.testing.assert_close(found[t].latent, z, rtol=0, atol=1e-12)
        assert (found[t].read is None, found[t].written is None) == (made.reader is None, made.writer is None)


def test_the_bound_is_that_of_torch_distributions(generator: torch.Generator) -> None:
    made, x, eps = network(), images(generator), noise(generator)

    glimpses = made(x, eps)
    bound = made.bound(x, glimpses)

    likelihood = Bernoulli(logits=glimpses[-1].canvas).log_prob(x).sum((1, 2, 3))
    prior = Normal(torch.zeros(3).double(), torch.ones(3).double())
    kl = torch.zeros(3).double()
    for glimpse in glimpses:
        assert glimpse.posterior is not None
        posterior = Normal(glimpse.posterior.mean, glimpse.posterior.log_deviation.exp())
        kl += kl_divergence(posterior, prior).sum(-1)
    torch.testing.assert_close(bound.reconstruction, -likelihood, rtol=0, atol=1e-11)
    torch.testing.assert_close(bound.kl, kl, rtol=0, atol=1e-11)
    torch.testing.assert_close(bound.total, kl - likelihood, rtol=0, atol=1e-11)


@pytest.mark.parametrize("options", ATTENTION[:2])
def test_what_it_bounds_is_the_probability_of_the_image(options: dict[str, Any], generator: torch.Generator) -> None:
    """p(x) from draws of the prior, and from draws of the posterior weighted by p(z) / q(z | x), agree."""
    torch.manual_seed(3)
    made = DRAW((2, 2), CORE, 1, 2, **options).double().eval()
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64).view(1, 1, 2, 2)
    draws = 40_000
    many, eps = x.expand(draws, -1, -1, -1), torch.randn(draws, 2, 1, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        from_prior = Bernoulli(logits=made.generate(eps)[-1].canvas).log_prob(many).sum((1, 2, 3)).exp()
        glimpses = made(many, eps)
        bound = made.bound(many, glimpses)
    standard = Normal(torch.zeros(()).double(), torch.ones(()).double())
    log_weight = -bound.reconstruction
    for glimpse in glimpses:
        assert glimpse.posterior is not None
        mean, log_deviation = glimpse.posterior
        log_weight = log_weight + standard.log_prob(glimpse.latent).sum(-1)
        log_weight = log_weight - Normal(mean, log_deviation.exp()).log_prob(glimpse.latent).sum(-1)
    weights = log_weight.exp()

    error = ((from_prior.var() + weights.var()) / draws).sqrt()
    assert abs(float(from_prior.mean() - weights.mean())) < 4 * float(error)
    assert float(bound.total.mean()) > -float(weights.mean().log())  # a bound on −log p(x)
    mean_log_weight, spread = float(log_weight.mean()), float(log_weight.std()) / draws**0.5
    assert float(bound.total.mean()) == pytest.approx(-mean_log_weight, abs=4 * spread + 0.01)


@pytest.mark.parametrize("options", ATTENTION)
def test_gradients_are_those_of_finite_differences(options: dict[str, Any], generator: torch.Generator) -> None:
    made = DRAW((3, 2), partial(Recurrent, GRUCell, hidden_size=3), 2, 2, **options).double()
    x = torch.rand(2, 1, 3, 2, generator=generator, dtype=torch.float64)
    eps = torch.randn(2, 2, 2, generator=generator, dtype=torch.float64)
    names = [name for name, _ in made.named_parameters()]

    def total(*values: Tensor) -> Tensor:
        glimpses = torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x, eps))
        return made.bound(x, glimpses).total

    given = [parameter.detach().requires_grad_() for parameter in made.parameters()]
    assert torch.autograd.gradcheck(total, given)


def test_every_cell_draws_and_learns_at_every_parameter(make_cell: Any, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    made = DRAW((5, 4), partial(Recurrent, make_cell, hidden_size=6, num_layers=2), 3, 4).double()
    x = images(generator)

    made.bound(x, made(x, noise(generator))).total.sum().backward()

    missing = {name for name, parameter in made.named_parameters() if parameter.grad is None}
    assert not missing
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.parameters() if parameter.grad is not None)


def test_latent_variables_of_an_image_draw_it_again_without_the_image(generator: torch.Generator) -> None:
    made, x = network(), images(generator)
    glimpses = made(x, noise(generator))

    again = made.generate(torch.stack([glimpse.latent for glimpse in glimpses], 1))

    for one, other in zip(glimpses, again, strict=True):
        assert torch.equal(one.canvas, other.canvas)
        assert other.posterior is other.read is None
    with pytest.raises(ValueError, match="the result of `forward`"):
        made.bound(x, again)


def test_a_row_of_a_batch_is_the_row_alone(generator: torch.Generator) -> None:
    made, x, eps = network(), images(generator), noise(generator)

    together = made.bound(x, made(x, eps)).total

    for row in range(3):
        one = slice(row, row + 1)
        alone = made.bound(x[one], made(x[one], eps[one])).total
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-11)


def test_it_can_be_recorded(generator: torch.Generator) -> None:
    made, x, eps = network(), images(generator), noise(generator)
    plain = made(x, eps)[-1].canvas

    with record(made) as recording:
        recorded = made(x, eps)[-1].canvas

    assert torch.equal(plain, recorded)
    assert recording is not None


def test_dropout_between_layers_acts_in_training_alone(generator: torch.Generator) -> None:
    core = partial(Recurrent, LSTMCell, hidden_size=6, num_layers=2, dropout=0.5)
    made, x, eps = network(core), images(generator), noise(generator)

    assert torch.equal(made(x, eps)[-1].canvas, made(x, eps)[-1].canvas)
    made.train()
    assert not torch.equal(made(x, eps)[-1].canvas, made(x, eps)[-1].canvas)


def test_what_cannot_be_is_refused(generator: torch.Generator) -> None:
    made, x, eps = network(), images(generator), noise(generator)
    with pytest.raises(ValueError, match="a FeedForward has no state"):
        DRAW((5, 4), partial(FeedForward, hidden_size=6))
    for name in ("latent_size", "num_glimpses", "channels", "read_size", "write_size"):
        with pytest.raises(ValueError, match=f"{name} is 0, expected 1 or more"):
            DRAW((5, 4), CORE, **{name: 0})
    with pytest.raises(ValueError, match="initial_deviation is 0"):
        DRAW((5, 4), CORE, filter_deviation=0)
    with pytest.raises(ValueError, match="image_size is 0"):
        DRAW((5, 0), CORE)
    with pytest.raises(ValueError, match="expected height and width"):
        DRAW((5,), CORE)
    with pytest.raises(ShapeError, match="images has the shape"):
        made(x[..., :3], eps)
    with pytest.raises(ShapeError, match="noise has the shape"):
        made(x, eps[:2])
    with pytest.raises(ShapeError, match="latents has the shape"):
        made.generate(eps[..., :2])
    with pytest.raises(ValueError, match="one or more glimpses"):
        made.bound(x, made(x, eps[:, :0]))
