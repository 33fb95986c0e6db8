"""Forecasters as C beside the networks themselves: windows of several lengths, with missing numbers."""

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AutoregressiveForecaster,
    Bundle,
    DirectForecaster,
    GRUCell,
    LinearForecaster,
    LSTMCell,
    NormalHead,
    NumbersHead,
    Processor,
    QuantileHead,
    Recurrent,
    Scaler,
    SegmentForecaster,
    StudentTHead,
)
from unrolled.deployment import export_c
from unrolled.models.forecasters.base import Forecaster

Compiler = Callable[..., Path]
TARGETS, COVARIATES, FUTURE, HORIZON, LENGTHS = 2, 1, 3, 5, (1, 7, 40)
CORE: Any = partial(Recurrent, LSTMCell, hidden_size=8)
NO_PROCESSOR = Processor(Scaler(["x"], [0.0], [1.0]))
MADE: dict[str, Callable[[], Forecaster]] = {
    "direct": lambda: DirectForecaster(
        COVARIATES, FUTURE, TARGETS, HORIZON, QuantileHead, CORE, normalization="standard"
    ),
    "unscaled": lambda: DirectForecaster(0, 0, 1, HORIZON, StudentTHead, CORE),
    "autoregressive": lambda: AutoregressiveForecaster(
        COVARIATES, FUTURE, TARGETS, HORIZON, NormalHead, CORE, normalization="last"
    ),
    "medians": lambda: AutoregressiveForecaster(0, 0, TARGETS, HORIZON, QuantileHead, CORE),
    "segments": lambda: SegmentForecaster(
        COVARIATES,
        FUTURE,
        TARGETS,
        HORIZON,
        NumbersHead,
        partial(Recurrent, GRUCell),
        context=10,
        segment_size=4,
        hidden_size=8,
    ),
}
MAIN = """
#include <stdio.h>
{includes}
{functions}
int main(void) {{
{calls}
  return 0;
}}
"""
RUN = """
static void run_{name}(int steps) {{
  static float past[{most} * {upper}_PAST], future[{upper}_HORIZON * {upper}_FUTURE + 1];
  static float values[{upper}_HORIZON * {upper}_TARGETS * {upper}_VALUES];
  static {name}_state state;
  if (fread(past, sizeof *past * {upper}_PAST, (size_t)steps, stdin) != (size_t)steps) return;
  const size_t known = sizeof future / sizeof *future - 1;
  if (fread(future, sizeof *future, known, stdin) != known) return;
  {name}_forecast(&state, past, steps, future, values);
  fwrite(values, sizeof values, 1, stdout);
}}
"""


def window(network: Forecaster, steps: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(steps)
    past = torch.randn(1, steps, network.past_size, generator=generator) + 3.0
    observed = (torch.rand(1, steps, network.num_targets, generator=generator) > 0.2).float()
    observed[:, 1:, 0] *= torch.arange(1, steps) < steps - 1  # the last number is missing
    past[..., network.num_targets : 2 * network.num_targets] = observed
    past[..., : network.num_targets] *= observed
    return past, torch.randn(1, network.horizon, network.future_size, generator=generator)


@torch.no_grad()
def wanted(network: Any, past: Tensor, future: Tensor) -> Tensor:
    """What the head predicts of each number, in the units of the past."""
    head, (_, (center, scale)) = network.head, network.normalized(past, None)
    parameters = network(past, future)
    if isinstance(head, QuantileHead):
        return head.quantiles_at(parameters, head.quantiles).squeeze(-2) * scale.unsqueeze(-1) + center.unsqueeze(-1)
    if isinstance(head, NumbersHead):
        return head.predict(parameters) * scale.unsqueeze(-1) + center.unsqueeze(-1)
    location, spread, *freedom = (part.squeeze(-1) for part in head.entries(parameters))
    return torch.stack([location * scale + center, spread * scale, *freedom], -1)


def test_forecasts_equal_those_of_the_networks(compile_c: Compiler) -> None:
    torch.manual_seed(0)
    networks = {name: make().eval() for name, make in MADE.items()}
    main = MAIN.format(
        includes="\n".join(f'#include "{name}.h"' for name in networks),
        functions="\n".join(RUN.format(name=name, upper=name.upper(), most=max(LENGTHS)) for name in networks),
        calls="\n".join(f"  run_{name}({steps});" for name in networks for steps in LENGTHS),
    )
    exported = {name: export_c(Bundle(network, NO_PROCESSOR, {}), name=name) for name, network in networks.items()}
    windows = {(name, steps): window(network, steps) for name, network in networks.items() for steps in LENGTHS}
    fed = b"".join(part.numpy().tobytes() for pair in windows.values() for part in pair)
    done = subprocess.run([str(compile_c(main, exported))], input=fed, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[:4000]
    numbers = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32)
    expected = {key: wanted(networks[key[0]], *each) for key, each in windows.items()}
    found = numbers.split([each.numel() for each in expected.values()])
    for (key, values), got in zip(expected.items(), found, strict=True):
        torch.testing.assert_close(got, values.flatten(), rtol=1e-5, atol=1e-5, msg=lambda text, k=key: f"{k}: {text}")


def test_8_bit_weights_of_a_forecaster_cost_little() -> None:
    torch.manual_seed(0)
    note = export_c(Bundle(MADE["segments"]().eval(), NO_PROCESSOR, {}), int8=True).notes[-1]
    assert note.startswith("8-bit weights change outputs by 0.0")


def test_other_forecasters_are_refused_by_name() -> None:
    linear = LinearForecaster(0, 0, 1, 2, NumbersHead, context=4, kernel_size=3)
    with pytest.raises(ValueError, match=r"a LinearForecaster cannot be written in C; .*DirectForecaster"):
        export_c(Bundle(linear.eval(), NO_PROCESSOR, {}))
