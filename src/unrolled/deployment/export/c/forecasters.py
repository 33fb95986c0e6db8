"""Forecasters in C, which read a window of the past at once, since its normalization needs all of it."""

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from unrolled.deployment.export.c.cells import write_core
from unrolled.deployment.export.c.interface import Interface
from unrolled.deployment.export.c.layers import write_encoder, write_linear, write_rectified
from unrolled.deployment.export.c.source import Body, Source, comment
from unrolled.heads.base import VectorHead
from unrolled.heads.location_scale import NormalHead, StudentTHead
from unrolled.heads.numbers import NumbersHead
from unrolled.heads.quantile import QuantileHead
from unrolled.models.forecasters.autoregressive import AutoregressiveForecaster
from unrolled.models.forecasters.base import Forecaster
from unrolled.models.forecasters.direct import DirectForecaster
from unrolled.models.forecasters.segments import SegmentForecaster
from unrolled.wording import article

_SIGNATURE = "void $_forecast($_state *state, const float *past, int steps, const float *future, float *values)"
_MEANING: dict[type[VectorHead], str] = {
    NumbersHead: "its mean",
    NormalHead: "its mean and deviation",
    StudentTHead: "its location, scale and degrees of freedom",
}
_WINDOW = {
    "last": """center[k] = 0.0f;
scale[k] = 1.0f;
for (int t = 0; t < steps; t++)
  if (past[t * {past} + {targets} + k] > 0.0f) center[k] = past[t * {past} + k];""",
    "standard": """float count = 0.0f, total = 0.0f, square = 0.0f;
for (int t = 0; t < steps; t++) {{
  count += past[t * {past} + {targets} + k];
  total += past[t * {past} + k] * past[t * {past} + {targets} + k];
}}
count = count > 1.0f ? count : 1.0f;
center[k] = total / count;
for (int t = 0; t < steps; t++) {{
  const float apart = past[t * {past} + k] - center[k];
  square += apart * apart * past[t * {past} + {targets} + k];
}}
scale[k] = sqrtf(square / count + 1e-5f);""",
    "none": "center[k] = 0.0f;\nscale[k] = 1.0f;",
}


def write_forecaster(source: Source, network: nn.Module) -> Interface:
    """Write a forecaster.

    Raises:
        ValueError: a network, or a part of it, that cannot be written in C.
    """
    known = cast(Forecaster, network)
    head = known.head
    if type(head) is not QuantileHead and type(head) not in _MEANING:
        raise ValueError(f"forecasts with {article(type(head).__name__)} cannot be written in C; use a QuantileHead")
    _write_window(source, known)
    _write_restored(source, head)
    body = Body()
    body.array(known.num_targets, "center")
    body.array(known.num_targets, "scale")
    body.add("$_window(past, steps, center, scale);")
    _WRITERS[type(network)](source, known, body)
    source.function(_SIGNATURE, body)
    sizes = {"PAST": known.past_size, "FUTURE": known.future_size, "TARGETS": known.num_targets}
    sizes |= {"HORIZON": known.horizon, "VALUES": head.output_size}
    meaning = _MEANING.get(type(head)) or f"its quantiles {', '.join(map(str, cast(QuantileHead, head).quantiles))}"
    what = (
        "Predicts $$_HORIZON steps from the last `steps` ones, 1 or more, with $$_PAST features each: the $$_TARGETS "
        "targets, 1 or 0 for each that is observed or not, and covariates, as SeriesTransform.encode computes them. "
        "`future` has the $$_FUTURE features of each step to come that are known. Writes for each step and target "
        f"$$_VALUES values, {meaning}, in the units of the past. Whatever the state was has no effect."
    )
    return Interface("a forecaster", sizes, [f"{comment(what)}\n{_SIGNATURE};"])


def _write_window(source: Source, network: Forecaster) -> None:
    """Write the function that computes center and scale of each target in a window."""
    body = Body()
    lines = _WINDOW[network.normalization].format(past=network.past_size, targets=network.num_targets).split("\n")
    body.add(f"for (int k = 0; k < {network.num_targets}; k++) {{", *(f"  {line}" for line in lines), "}")
    source.function("static void $_window(const float *past, int steps, float *center, float *scale)", body)


def _write_restored(source: Source, head: VectorHead) -> None:
    """Write the function that computes the values of one number in the units of the past."""
    body, each = Body(), head.output_size
    location_scale = isinstance(head, NormalHead | StudentTHead)
    body.each(each, "values[j] = outputs[j];")
    if isinstance(head, QuantileHead):
        body.add(f"$_sort(values, {each});")
    if isinstance(head, NumbersHead) and head.bounded:
        body.add("values[0] = $_sigmoid(values[0]);")
    body.each(1 if location_scale else each, "values[j] = values[j] * scale + center;")
    if location_scale:
        body.add("values[1] = $_softplus(values[1]) * scale;")
    if isinstance(head, StudentTHead):
        body.add("values[2] = 2.0f + $_softplus(values[2]);")
    source.function("static void $_restored(const float *outputs, float center, float scale, float *values)", body)


def _write_read(source: Source, write: Callable[[Body], str], size: int) -> None:
    """Write the function that reads a step."""
    body = Body()
    output = write(body)
    body.each(size, f"outputs[j] = {output}[j];")
    source.function("static void $_read($_state *state, const float *inputs, float *outputs)", body)


def _normalized(network: Forecaster, number: str = "j") -> str:
    """Return a normalized target, 0 where it is missing, of the step t."""
    past, targets, k = network.past_size, network.num_targets, number
    return f"(past[t * {past} + {k}] - center[{k}]) / scale[{k}] * past[t * {past} + {targets} + {k}]"


def _restore_all(network: Forecaster, body: Body, outputs: str) -> None:
    """Add the values of all targets of the step h."""
    each = network.head.output_size
    at = f"values + (h * {network.num_targets} + j) * {each}"
    body.each(network.num_targets, f"$_restored({outputs} + j * {each}, center[j], scale[j], {at});")


def _direct(source: Source, network: Any, body: Body) -> None:
    known = cast(DirectForecaster, network)
    size, past, targets, future = known.encoder.output_size, known.past_size, known.num_targets, known.future_size
    _write_read(source, lambda of_step: write_encoder(source, known.encoder, of_step), size)
    body.array(past, "inputs")
    positions = known.positions.weight.shape[1]
    body.array(size + positions + future, "joined")
    body.add("$_init(state);")
    body.each(size, "joined[j] = 0.0f;")
    body.add("for (int t = 0; t < steps; t++) {")
    body.each(past, f"inputs[j] = past[t * {past} + j];")
    body.each(targets, f"inputs[j] = {_normalized(known)};")
    body.add("$_read(state, inputs, joined);", "}", f"for (int h = 0; h < {known.horizon}; h++) {{")
    body.add(source.row(known.positions.weight, "h", f"joined + {size}"))
    if future:
        body.each(future, f"joined[{size + positions} + j] = future[h * {future} + j];")
    hidden = write_rectified(source, known.hidden, body, "joined")
    _restore_all(known, body, write_linear(source, known.head.linear, body, hidden))
    body.add("}")


def _autoregressive(source: Source, network: Any, body: Body) -> None:
    known = cast(AutoregressiveForecaster, network)
    size, past, targets, future = known.core.output_size, known.past_size, known.num_targets, known.future_size
    _write_read(source, lambda of_step: write_core(source, known.core, of_step, "inputs"), size)
    body.array(2 * targets + future, "inputs")
    body.array(size, "output")
    body.add("$_init(state);", "for (int t = 0; t < steps; t++) {")
    body.each(
        targets, f"inputs[j] = {_normalized(known)};", f"inputs[{targets} + j] = past[t * {past} + {targets} + j];"
    )
    if future:
        after = f"past + (t + 1) * {past} + {past - future}"
        body.add(f"const float *next = t + 1 < steps ? {after} : future;")
        body.each(future, f"inputs[{2 * targets} + j] = next[j];")
    body.add("$_read(state, inputs, output);", "}", f"for (int h = 0; h < {known.horizon}; h++) {{")
    outputs = write_linear(source, known.head.linear, body, "output")
    _restore_all(known, body, outputs)
    head, each = known.head, known.head.output_size
    place = head.quantiles.index(0.5) if isinstance(head, QuantileHead) else 0
    fed = f"{outputs}[j * {each} + {place}]"
    if isinstance(head, NumbersHead) and head.bounded:
        fed = f"$_sigmoid({fed})"
    body.add(f"if (h + 1 == {known.horizon}) break;")
    body.each(targets, f"inputs[j] = {fed};", f"inputs[{targets} + j] = 1.0f;")
    if future:
        body.each(future, f"inputs[{2 * targets} + j] = future[(h + 1) * {future} + j];")
    body.add("$_read(state, inputs, output);", "}")


def _segments(source: Source, network: Any, body: Body) -> None:
    known = cast(SegmentForecaster, network)
    width, size, each = known.segment_size, known.core.output_size, known.head.output_size
    read = -(-known.context // width)
    _write_read(source, lambda of_step: write_core(source, known.core, of_step, "inputs"), size)
    targets = known.num_targets
    body.array(width, "segment")
    body.array(size, "output")
    body.array(known.core.input_size, "query")
    body.add(f"for (int k = 0; k < {targets}; k++) {{", "$_init(state);", f"for (int i = 0; i < {read}; i++) {{")
    body.each(
        width,
        f"const int t = steps - {read * width} + i * {width} + j;",
        "segment[j] = 0.0f;",
        f"if (t >= 0) segment[j] = {_normalized(known, 'k')};",
    )
    body.add(f"$_read(state, {write_rectified(source, known.embedding, body, 'segment')}, output);", "}")
    body.add(f"for (int i = 0; i < {known.num_segments}; i++) {{", "$_state copy = *state;")
    half = known.positions.shape[1]
    body.add(source.row(known.positions, "i", "query"))
    if known.targets is not None:
        body.add(source.row(known.targets, "k", f"query + {half}"))
    body.add("$_read(&copy, query, output);")
    outputs = write_linear(source, known.head.linear, body, "output")
    body.add(f"for (int h = i * {width}; h < (i + 1) * {width} && h < {known.horizon}; h++)")
    at = f"values + (h * {targets} + k) * {each}"
    body.add(f"  $_restored({outputs} + (h - i * {width}) * {each}, center[k], scale[k], {at});", "}", "}")


_WRITERS: dict[type[nn.Module], Callable[[Source, Any, Body], None]] = {
    DirectForecaster: _direct,
    AutoregressiveForecaster: _autoregressive,
    SegmentForecaster: _segments,
}
FORECASTERS = tuple(_WRITERS)
