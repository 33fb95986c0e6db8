"""Embeddings, encoders, poolings and heads in C."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.deployment.export.c.cells import write_core
from unrolled.deployment.export.c.source import Body, Source, literal
from unrolled.heads.base import Head
from unrolled.heads.categorical import CategoricalHead
from unrolled.heads.ctc import CTCHead
from unrolled.heads.labels import LabelsHead
from unrolled.heads.location_scale import NormalHead, StudentTHead
from unrolled.heads.numbers import NumbersHead
from unrolled.heads.quantile import QuantileHead
from unrolled.layers.convolution import CausalConvolution
from unrolled.layers.pooling import AttentionPooling, ConcatPooling, LastPooling, MaxPooling, MeanPooling
from unrolled.models.embeddings import FrameEmbedding, OneHotEmbedding, TokenEmbedding
from unrolled.models.encoders import FeatureEncoder, RecurrentEncoder
from unrolled.models.wide import MULTIPLIER, WidePath


class Values(NamedTuple):
    """What a head's parameters mean, as `$_predict` computes it.

    Attributes:
        about: what the values are.
        size: their number.
    """

    about: str
    size: int


def write_linear(source: Source, linear: nn.Linear, body: Body, inputs: str) -> str:
    """Add a linear layer, and return the array of its output."""
    output = body.array(linear.out_features)
    body.add(source.affine(linear.weight, linear.bias, inputs, output))
    return output


def write_embedding(source: Source, embedding: nn.Module, body: Body, *, tied: bool = False) -> str:
    """Add the embedding of `token` or of `inputs`, and return the array of its output.

    Args:
        source: the file.
        embedding: the embedding.
        body: the function.
        tied: whether the head has the same weights, which are stored once.

    Raises:
        ValueError: an embedding of another class.
    """
    kind = type(embedding)
    if kind is TokenEmbedding:
        known = cast(TokenEmbedding, embedding)
        output = body.array(known.output_size)
        body.add((source.column if tied else source.row)(known.weight, "token", output))
        if known.scale != 1.0:
            body.each(known.output_size, f"{output}[j] *= {literal(known.scale)};")
        return output
    if kind is OneHotEmbedding:
        size = cast(OneHotEmbedding, embedding).output_size
        output = body.array(size)
        body.each(size, f"{output}[j] = j == token ? 1.0f : 0.0f;")
        return output
    if kind is FrameEmbedding:
        linear = cast(FrameEmbedding, embedding).linear
        return "inputs" if linear is None else write_linear(source, linear, body, "inputs")
    raise ValueError(
        f"embeddings of the class {kind.__name__} cannot be written in C; use a TokenEmbedding, a OneHotEmbedding or a "
        "FrameEmbedding"
    )


def write_encoder(source: Source, encoder: nn.Module, body: Body) -> str:
    """Add a step of an encoder of `token` or `inputs`, and return the array of its output.

    Raises:
        ValueError: an encoder that cannot be written in C.
    """
    if type(encoder) is RecurrentEncoder:
        return write_core(source, encoder.core, body, write_embedding(source, encoder.embedding, body))
    if type(encoder) is not FeatureEncoder:
        raise ValueError(
            f"encoders of the class {type(encoder).__name__} cannot be written in C; use a FeatureEncoder or a "
            "RecurrentEncoder"
        )
    values = "inputs"
    if encoder.convolution is not None:
        values = _convolution(source, encoder.convolution, body, values)
    if encoder.filters is not None:
        values = write_rectified(source, encoder.filters, body, values)
    return write_core(source, encoder.core, body, values)


def write_rectified(source: Source, linear: nn.Linear, body: Body, inputs: str) -> str:
    """Add a linear layer with ReLU, and return the array of its output."""
    output = write_linear(source, linear, body, inputs)
    body.each(linear.out_features, f"{output}[j] = {output}[j] > 0.0f ? {output}[j] : 0.0f;")
    return output


def _convolution(source: Source, convolution: CausalConvolution, body: Body, values: str) -> str:
    width, channels, frames = convolution.input_size, 1, convolution.seen + 1
    for number, layer in enumerate((convolution.first, convolution.second)):
        norm = None if convolution.norms is None else cast(nn.BatchNorm1d, convolution.norms[number])
        weight, bias = _normalized(layer, norm)
        read = values
        if frames > 1:
            read = source.state(torch.zeros(frames * channels * width), f"frames_{number}")
            body.add(f"$_push({read}, {frames}, {channels * width}, {values});")
        filters, kernel = layer.out_channels, layer.kernel_size[1]
        half = (width + 1) // 2
        output = body.array(filters * half)
        arrays = f"{source.vector(weight)}, {source.vector(bias)}, {read}"
        body.add(f"$_convolve({arrays}, {frames}, {channels}, {width}, {kernel}, {filters}, {output});")
        values, width, channels = output, half, filters
    return values


def _normalized(layer: nn.Conv2d, norm: nn.BatchNorm1d | None) -> tuple[Tensor, Tensor]:
    """Return the weights and bias of a convolution followed by a normalization with fixed statistics."""
    weight, bias = layer.weight.detach().double(), cast(Tensor, layer.bias).detach().double()
    if norm is None:
        return weight, bias
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.detach().double() / (variance + norm.eps).sqrt()
    return weight * scale.view(-1, 1, 1, 1), (bias - mean) * scale + norm.bias.detach().double()


def write_pooling(source: Source, pooling: nn.Module, body: Body, values: str, name: str = "pooled") -> str:
    """Add a step to a pooling over time, and return the array of its result for all steps so far.

    Raises:
        ValueError: a pooling of another class.
    """
    kind, size = type(pooling), cast(Any, pooling).input_size
    if kind is LastPooling:
        return values
    if kind is MeanPooling:
        total, steps = source.state(torch.zeros(size), f"{name}_total"), source.state(torch.zeros(1), f"{name}_steps")
        mean = body.array(size)
        body.add(f"{steps}[0] += 1.0f;")
        body.each(size, f"{total}[j] += {values}[j];", f"{mean}[j] = {total}[j] / {steps}[0];")
        return mean
    if kind is MaxPooling:
        greatest = source.state(torch.full((size,), -torch.inf), f"{name}_greatest")
        body.each(size, f"{greatest}[j] = $_larger({values}[j], {greatest}[j]);")
        return greatest
    if kind is AttentionPooling:
        return _attention(source, cast(AttentionPooling, pooling), body, values, name)
    if kind is ConcatPooling:
        parts = cast("list[Any]", list(cast(ConcatPooling, pooling).poolings))
        joined = body.array(sum(part.output_size for part in parts))
        offset = 0
        for number, part in enumerate(parts):
            own = write_pooling(source, part, body, values, f"{name}_{number}")
            body.each(part.output_size, f"{joined}[{offset} + j] = {own}[j];")
            offset += part.output_size
        return joined
    raise ValueError(
        f"a pooling of the class {kind.__name__} cannot be written in C; use LastPooling, MeanPooling, MaxPooling, "
        "AttentionPooling or ConcatPooling"
    )


def _attention(source: Source, pooling: AttentionPooling, body: Body, values: str, name: str) -> str:
    """Add a step of the online softmax, as `AttentionPooling.step`."""
    size = pooling.input_size
    least = torch.tensor([torch.finfo(torch.float32).min])
    greatest, total = source.state(least, f"{name}_greatest"), source.state(torch.zeros(1), f"{name}_total")
    weighted = source.state(torch.zeros(size), f"{name}_weighted")
    hidden = write_linear(source, pooling.hidden, body, values)
    body.each(pooling.hidden.out_features, f"{hidden}[j] = tanhf({hidden}[j]);")
    score = write_linear(source, pooling.score, body, hidden)
    new, result = f"new_{name}", body.array(size)
    body.add(f"const float {new} = $_larger({greatest}[0], {score}[0]);")
    body.add(f"const float {new}_old = expf({greatest}[0] - {new}), {new}_weight = expf({score}[0] - {new});")
    body.add(f"{greatest}[0] = {new};", f"{total}[0] = {total}[0] * {new}_old + {new}_weight;")
    body.each(
        size,
        f"{weighted}[j] = {weighted}[j] * {new}_old + {new}_weight * {values}[j];",
        f"{result}[j] = {weighted}[j] / {total}[0];",
    )
    return result


def write_wide(source: Source, wide: WidePath, body: Body, outputs: str) -> None:
    """Add the mean weight of the tokens so far, and of their pairs, to outputs."""
    size = wide.output_size
    total, number = source.state(torch.zeros(size), "wide_total"), source.state(torch.zeros(1), "wide_number")
    found = body.array(size)
    body.add(source.row(wide.tokens.weight, "token", found), f"{number}[0] += 1.0f;")
    body.each(size, f"{total}[j] += {found}[j];")
    if wide.pairs is not None:
        previous = source.counter(-1, "wide_previous")
        body.add(f"if ({previous} >= 0) {{")
        pair = f"(long)(({previous} * {MULTIPLIER}LL + token) % {wide.num_buckets}LL)"
        body.add(f"  {source.row(wide.pairs.weight, pair, found)}", f"  {number}[0] += 1.0f;")
        body.add(f"  for (int j = 0; j < {size}; j++) {total}[j] += {found}[j];", "}", f"{previous} = token;")
    body.each(size, f"{outputs}[j] += {total}[j] / {number}[0];")


def write_head(source: Source, head: Head, body: Body, features: str, outputs: str) -> None:
    """Add the parameters that a head predicts.

    Raises:
        ValueError: a head that computes something else than a product.
    """
    if type(head).forward is not Head.forward:
        raise ValueError(f"a head of the class {type(head).__name__} cannot be written in C: it overrides forward")
    body.add(source.affine(head.linear.weight, head.linear.bias, features, outputs))


def write_values(source: Source, head: Head, restored: tuple[Tensor, Tensor] | None) -> Values | None:
    """Add the function that computes what a head's parameters mean: probabilities, numbers, quantiles.

    Args:
        source: the file.
        head: the head.
        restored: center and scale of each number, (numbers,) each; None for numbers as the network predicts them.

    Returns:
        What the values are; None for a head without a meaning that C can compute.
    """
    kind, size = type(head), head.output_size
    body = Body()
    if kind in (CategoricalHead, CTCHead):
        body.add(f"$_softmax(outputs, {size}, values);")
        about = "the probability of each class, of which class 0 is the blank" if kind is CTCHead else ""
        about = about or "the probability of each class"
    elif kind is LabelsHead or (kind is NumbersHead and cast(NumbersHead, head).bounded):
        body.each(size, "values[j] = $_sigmoid(outputs[j]);")
        about = "the probability of each label" if kind is LabelsHead else "the numbers, between 0 and 1"
    elif kind in (NumbersHead, NormalHead, StudentTHead, QuantileHead):
        about = _numbers(source, head, body, restored)
    else:
        return None
    source.function("void $_predict(const float *outputs, float *values)", body)
    return Values(about, size)


def _numbers(source: Source, head: Head, body: Body, restored: tuple[Tensor, Tensor] | None) -> str:
    count = cast(int, head.target_size)
    each = head.output_size // count
    body.each(head.output_size, "values[j] = outputs[j];")
    about = "the numbers"
    if isinstance(head, QuantileHead):
        body.add(f"for (int k = 0; k < {count}; k++) $_sort(values + {each} * k, {each});")
        about = f"of each number the quantiles {', '.join(map(str, head.quantiles))}"
    elif isinstance(head, NormalHead | StudentTHead):
        body.each(count, f"values[{each} * j + 1] = $_softplus(values[{each} * j + 1]);")
        about = "of each number the mean and the deviation"
    if isinstance(head, StudentTHead):
        body.each(count, f"values[{each} * j + 2] = 2.0f + $_softplus(values[{each} * j + 2]);")
        about = "of each number the location, the scale and the degrees of freedom"
    if restored is not None:
        centers, scales = (part.double().view(-1, 1).expand(-1, each).clone() for part in restored)
        if isinstance(head, NormalHead | StudentTHead):
            centers[:, 1:] = 0.0
            scales[:, 2:] = 1.0
        center, scale = source.vector(centers), source.vector(scales)
        body.each(head.output_size, f"values[j] = values[j] * {scale}[j] + {center}[j];")
    return about
