"""DRAW: an image is drawn on a canvas in several steps, each from a latent variable of its own."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from unrolled.heads.temperature import widened
from unrolled.layers.grid_attention import GaussianGrid, GridAttention
from unrolled.layers.observing import observed_steps
from unrolled.layers.recurrent import Recurrent
from unrolled.models.encoders import complete
from unrolled.shapes import expect
from unrolled.wording import article


class Posterior(NamedTuple):
    """A normal distribution of a latent variable, given an image.

    Attributes:
        mean: (batch, latent).
        log_deviation: (batch, latent), logarithms of standard deviations.
    """

    mean: Tensor
    log_deviation: Tensor

    def kl(self) -> Tensor:
        """Return the divergence (batch,) from the prior N(0, 1) in nats."""
        mean, log_deviation = map(widened, self)
        return (0.5 * (mean.square() + (2 * log_deviation).exp() - 1) - log_deviation).sum(-1)


class Glimpse(NamedTuple):
    """A step of drawing.

    Attributes:
        canvas: (batch, channels, height, width), the canvas after the step, as logits of pixels.
        latent: (batch, latent), the latent variable.
        posterior: its distribution; None if there is no image to look at.
        read: the grid that read the image; None without one, or without an image.
        written: the grid that wrote on the canvas; None without one.
    """

    canvas: Tensor
    latent: Tensor
    posterior: Posterior | None
    read: GaussianGrid | None
    written: GaussianGrid | None


class DrawState(NamedTuple):
    """What is carried from a glimpse to the next one when new images are drawn.

    Attributes:
        canvas: (batch, channels, height, width), logits of pixels.
        decoder: the decoder's state.
    """

    canvas: Tensor
    decoder: Any


class Bound(NamedTuple):
    """The two parts of a variational bound on −log p(image), in nats; the bound is their sum.

    Attributes:
        reconstruction: (batch,), −log p(image | latent variables).
        kl: (batch,), divergence of the posterior of all latent variables from their prior.
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def total(self) -> Tensor:
        """(batch,), the bound."""
        return self.reconstruction + self.kl


class DRAW(nn.Module):
    """Draws images on a canvas: Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation".

    At each glimpse t, an encoder reads the image x and what the canvas c still lacks of it, and gives the posterior of
    a latent variable z. The decoder reads z, and what it gives is added to the canvas (eq. 3 to 8):

    - x̂ = x − σ(c_{t−1}), and r = read(x, x̂, h_dec)
    - h_enc = encoder([r, h_dec]), and z ~ N(μ(h_enc), σ(h_enc)²)
    - h_dec = decoder(z), and c_t = c_{t−1} + write(h_dec)

    Without an image, z is drawn from its prior N(0, 1). The last canvas holds the logits of the pixels. The canvas and
    the decoder's output before the first glimpse are parameters.

    Args:
        image_size: height and width of the images in pixels.
        core: a partial `Recurrent` for the encoder and the decoder, with any cell.
        latent_size: number of entries of a latent variable.
        num_glimpses: number of glimpses that users draw noise for; a call has as many as its noise.
        channels: number of channels of an image.
        read_size: side of the grid of filters that reads; None to read the whole image.
        write_size: side of the grid of filters that writes; None to write on the whole canvas.
        filter_deviation: standard deviation of both grids' filters before training, in pixels.
        hidden_size: number of units of encoder and decoder; None for that of the core.
        num_layers: number of their layers; None for that of the core.

    Raises:
        ValueError: a size below one, a deviation that is not above 0, or a core without a state.
    """

    def __init__(
        self,
        image_size: Sequence[int],
        core: Callable[..., Recurrent],
        latent_size: int = 100,
        num_glimpses: int = 64,
        *,
        channels: int = 1,
        read_size: int | None = 2,
        write_size: int | None = 5,
        filter_deviation: float = 1.0,
        hidden_size: int | None = None,
        num_layers: int | None = None,
    ) -> None:
        super().__init__()
        if len(image_size) != 2:
            raise ValueError(f"image_size is {list(image_size)}, expected height and width")
        sizes: dict[str, int | None] = {"latent_size": latent_size, "num_glimpses": num_glimpses, "channels": channels}
        sizes |= {"image_size": min(image_size), "read_size": read_size, "write_size": write_size}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"{name} is {size}, expected 1 or more")
        image = height, width = int(image_size[0]), int(image_size[1])
        self.image_shape = (channels, height, width)
        self.latent_size, self.num_glimpses = latent_size, num_glimpses
        read, written = (channels * (height * width if size is None else size**2) for size in (read_size, write_size))
        self.decoder = _stateful(complete(core, latent_size, hidden_size=hidden_size, num_layers=num_layers))
        features = self.decoder.output_size
        self.encoder = _stateful(complete(core, 2 * read + features, hidden_size=hidden_size, num_layers=num_layers))
        self.posterior = nn.Linear(self.encoder.output_size, 2 * latent_size)
        self.reader, self.writer = (
            None if size is None else GridAttention(features, size, image, initial_deviation=filter_deviation)
            for size in (read_size, write_size)
        )
        self.patch = nn.Linear(features, written)
        self.initial_canvas = nn.Parameter(torch.zeros(self.image_shape))
        self.initial_output = nn.Parameter(torch.zeros(features))

    def forward(self, images: Tensor, noise: Tensor) -> list[Glimpse]:
        """Draw images again, from what is read of them.

        Args:
            images: (batch, channels, height, width), pixels or their probabilities, from 0 to 1.
            noise: (batch, glimpses, latent), draws of N(0, 1), from which latent variables are made.

        Raises:
            ShapeError: images or noise of the wrong shape.
        """
        channels, height, width = self.image_shape
        expect(images, "batch channels height width", channels=channels, height=height, width=width, name="images")
        expect(noise, "batch glimpses latent", batch=images.shape[0], latent=self.latent_size, name="noise")
        canvas, output = self._start(noise.shape[0])
        encode, decode = _Steps(self.encoder, noise), _Steps(self.decoder, noise)
        glimpses: list[Glimpse] = []
        with observed_steps(self, noise, None):
            for draw in noise.unbind(1):
                read, reading = self._read(images, canvas, output)
                encoded = encode(torch.cat([read, output], dim=-1))
                posterior = Posterior(*self.posterior(encoded).to(draw.dtype).chunk(2, dim=-1))
                latent = posterior.mean + posterior.log_deviation.exp() * draw
                output = decode(latent)
                canvas, writing = self._write(canvas, output)
                glimpses.append(Glimpse(canvas, latent, posterior, reading, writing))
        return glimpses

    def generate(self, latents: Tensor) -> list[Glimpse]:
        """Draw new images from latent variables (batch, glimpses, latent), draws of the prior N(0, 1).

        Raises:
            ShapeError: latent variables of the wrong shape.
        """
        expect(latents, "batch glimpses latent", latent=self.latent_size, name="latents")
        canvas, output = self._start(latents.shape[0])
        decode = _Steps(self.decoder, latents)
        glimpses: list[Glimpse] = []
        with observed_steps(self.decoder, latents, None):
            for latent in latents.unbind(1):
                output = decode(latent)
                canvas, writing = self._write(canvas, output)
                glimpses.append(Glimpse(canvas, latent, None, None, writing))
        return glimpses

    def initial_state(self, batch: int) -> DrawState:
        """Return the state before the first glimpse of `step`."""
        canvas, output = self._start(batch)
        return DrawState(canvas, self.decoder.initial_state(batch, like=output))

    def step(self, latent: Tensor, state: DrawState) -> tuple[Glimpse, DrawState]:
        """Draw a glimpse of new images from a latent variable (batch, latent), as `generate` does for all of them.

        Raises:
            ShapeError: a latent variable or a state of the wrong shape.
        """
        expect(latent, "batch latent", latent=self.latent_size, name="latent")
        channels, height, width = self.image_shape
        sizes = {"batch": latent.shape[0], "channels": channels, "height": height, "width": width}
        expect(state.canvas, "batch channels height width", **sizes, name="state.canvas")
        output, decoder = self.decoder.step(latent, state.decoder)
        canvas, writing = self._write(state.canvas, output)
        return Glimpse(canvas, latent, None, None, writing), DrawState(canvas, decoder)

    def bound(self, images: Tensor, glimpses: Sequence[Glimpse]) -> Bound:
        """Compute the bound for images (batch, channels, height, width) and the result of `forward` (eq. 9 to 12).

        Raises:
            ValueError: no glimpse, or glimpses of `generate`, which saw no image.
        """
        kl = [glimpse.posterior.kl() for glimpse in glimpses if glimpse.posterior is not None]
        if not kl or len(kl) < len(glimpses):
            raise ValueError("a bound needs one or more glimpses of the images: the result of `forward`")
        canvas = widened(glimpses[-1].canvas)
        losses = binary_cross_entropy_with_logits(canvas, images.to(canvas.dtype), reduction="none")
        return Bound(losses.flatten(1).sum(-1), torch.stack(kl).sum(0))

    def _start(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the canvas and the decoder's output before the first glimpse."""
        return self.initial_canvas.expand(batch, -1, -1, -1), self.initial_output.expand(batch, -1)

    def _read(self, images: Tensor, canvas: Tensor, output: Tensor) -> tuple[Tensor, GaussianGrid | None]:
        """Return what is read of the images and of what the canvas lacks, (batch, features), and the grid."""
        both = torch.cat([images, images - canvas.sigmoid()], dim=1)
        if self.reader is None:
            return both.flatten(1), None
        grid = self.reader(output)
        return grid.read(both).flatten(1), grid

    def _write(self, canvas: Tensor, output: Tensor) -> tuple[Tensor, GaussianGrid | None]:
        """Return the next canvas and the grid that wrote on it."""
        written = self.patch(output)
        if self.writer is None:
            return canvas + written.view(canvas.shape), None
        grid = self.writer(output)
        size = self.writer.size
        return canvas + grid.write(written.view(canvas.shape[0], -1, size, size)), grid


class _Steps:
    """Steps a core through a batch of sequences.

    Args:
        core: the core.
        like: (batch, time, …), as many sequences and steps; for dtype and device, too.
    """

    def __init__(self, core: Recurrent, like: Tensor) -> None:
        batch, time = like.shape[:2]
        self._core, self._state = core, core.initial_state(batch, like=like)
        self._noises = iter(core.noises(batch, time, like=like))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Compute the output (batch, output) of the next step for inputs (batch, input)."""
        output, self._state = self._core.advance(None, self._state, next(self._noises), inputs)
        return output


def _stateful(core: Any) -> Recurrent:
    if not isinstance(core, Recurrent):
        raise ValueError(f"DRAW needs a recurrent model, such as lstm, but {article(type(core).__name__)} has no state")
    return core
