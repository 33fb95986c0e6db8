"""Classifiers, taggers and decoders as C beside the networks themselves, step by step, with their processors."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    AdditiveAttention,
    AttentionPooling,
    AutoregressiveDecoder,
    Bundle,
    CategoricalHead,
    CharacterTokenizer,
    ClockworkCell,
    ConcatPooling,
    CTCHead,
    FeatureEncoder,
    FeedForward,
    FrameEmbedding,
    GRUCell,
    ImageSequence,
    LabelEncoder,
    LabelsHead,
    LastPooling,
    MaxPooling,
    MeanPooling,
    MixtureHead,
    NormalHead,
    NumbersHead,
    OneHotEmbedding,
    Processor,
    ProjectedLSTMCell,
    QuantileHead,
    Recurrent,
    RecurrentEncoder,
    Scaler,
    SequenceClassifier,
    SequenceTagger,
    SeriesScaler,
    StudentTHead,
    WidePath,
)
from unrolled.deployment import export_c

Run = Callable[..., dict[str, Tensor]]
STEPS, FEATURES, CLASSES, SYMBOLS = 200, 6, 4, "abcdefgh"
CORE: Any = partial(Recurrent, GRUCell, hidden_size=10)
DEEP: Any = partial(CORE, num_layers=2)
PLAIN: Any = partial(FeedForward, hidden_size=10)  # no cell to trace
LABELS = LabelEncoder(["left", 'right "$?', "up", "ünten"])


def frames_classifier(
    pooling: Any = MeanPooling, head: Any = None, core: Any = CORE, **options: Any
) -> SequenceClassifier:
    own = {key: options.pop(key) for key in ("filters", "conv_channels", "conv_frames", "conv_norm") if key in options}
    encoder = FeatureEncoder(FEATURES, core, bidirectional=False, **own)
    return SequenceClassifier(encoder, head or partial(CategoricalHead, num_classes=CLASSES), pooling, **options)


def token_classifier(**options: Any) -> SequenceClassifier:
    encoder = RecurrentEncoder.of_tokens(len(SYMBOLS) + 2, 5, CORE, bidirectional=False)
    return SequenceClassifier(encoder, partial(CategoricalHead, num_classes=CLASSES), MaxPooling, **options)


def language_model(**options: Any) -> AutoregressiveDecoder:
    return AutoregressiveDecoder.of_tokens(len(SYMBOLS) + 2, 10, CORE, **options)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, WidePath):
            for parameter in module.parameters():
                nn.init.normal_(parameter)
    return network.eval()


SCALER = SeriesScaler(
    [f"x{n} */" for n in range(FEATURES)], [1e5, 2.0, 0.0, -3.0, 0.5, 1.0], [2.0, 0.5, 1.0, 4.0, 1.0, 3.0]
)
IMAGE = ImageSequence([FEATURES, FEATURES], center=0.3, scale=0.5)
TEXT = CharacterTokenizer(SYMBOLS)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Processor]] = {
    "last": (partial(frames_classifier, LastPooling, hidden_size=7), Processor(SCALER, LABELS)),
    "mean": (partial(frames_classifier, MeanPooling, core=DEEP, filters=8), Processor(SCALER, LABELS)),
    "attention": (partial(frames_classifier, AttentionPooling), Processor(IMAGE, LABELS)),
    "convolution": (
        partial(
            frames_classifier,
            partial(ConcatPooling, poolings=[MeanPooling, MaxPooling]),
            conv_channels=3,
            conv_frames=3,
            conv_norm=True,
        ),
        Processor(SCALER, LABELS),
    ),
    "current_frame": (partial(frames_classifier, conv_channels=2), Processor(SCALER, LABELS)),
    "forward": (
        partial(
            frames_classifier,
            core=partial(FeedForward, hidden_size=FEATURES, num_layers=2, activation="softsign", residual=True),
        ),
        Processor(SCALER, LABELS),
    ),
    "wide": (
        partial(token_classifier, wide=partial(WidePath, vocabulary_size=10, num_buckets=50)),
        Processor(TEXT, LABELS),
    ),
    "labels": (
        partial(frames_classifier, head=partial(LabelsHead, num_labels=CLASSES)),
        Processor(SCALER, LabelEncoder(["a", "b", "c", "d"], multiple=True)),
    ),
    "language_model": (language_model, Processor(TEXT)),
    "tied": (partial(language_model, tied=True, scaled_embedding=True), Processor(TEXT)),
    "one_hot": (
        lambda: AutoregressiveDecoder(OneHotEmbedding(10), CORE, partial(CategoricalHead, num_classes=10)),
        Processor(TEXT),
    ),
    "projected_frames": (
        lambda: AutoregressiveDecoder(FrameEmbedding(FEATURES, 4), CORE, partial(NumbersHead, num_outputs=FEATURES)),
        Processor(SCALER),
    ),
}


def test_networks_equal_eager_step_by_step(run_c: Run) -> None:
    given = {
        name: (Bundle(seeded(make), processor, {}), inputs_of(processor))
        for name, (make, processor) in NETWORKS.items()
    }
    found = run_c(given)
    for name, (bundle, inputs) in given.items():
        torch.testing.assert_close(
            found[name], stepped(bundle, inputs), rtol=0.0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def inputs_of(processor: Processor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    if isinstance(processor.source, CharacterTokenizer):
        return torch.randint(processor.source.size, (STEPS,), generator=generator)
    if isinstance(processor.source, ImageSequence):
        return torch.rand(STEPS, FEATURES, generator=generator)
    return torch.randn(STEPS, FEATURES, generator=generator) * SCALER.scales.float() + SCALER.centers.float()


@torch.no_grad()
def stepped(bundle: Bundle, inputs: Tensor) -> Tensor:
    """The outputs of the network after each step."""
    network, source = bundle.network, bundle.processor.source
    if isinstance(source, SeriesScaler):
        inputs = source(inputs)
    elif isinstance(source, ImageSequence):
        inputs = (inputs - source.center) / source.scale
    if isinstance(network, AutoregressiveDecoder):
        return network(inputs.unsqueeze(0)).parameters[0]
    assert isinstance(network, SequenceClassifier)
    lengths = torch.tensor([STEPS])
    return network.predict_prefixes(inputs.unsqueeze(0), lengths, [n / STEPS for n in range(1, STEPS + 1)])[0]


NUMBERS = Scaler(["a", "b"], [3.0, -1.0], [2.0, 0.5])
HEADS: dict[str, tuple[Any, Any, Callable[[Any, Tensor], Tensor]]] = {
    "classes": (partial(CategoricalHead, num_classes=4), LABELS, lambda head, x: head.probabilities(x)),
    "several": (
        partial(LabelsHead, num_labels=4),
        LabelEncoder(list("abcd"), True),
        lambda head, x: head.probabilities(x),
    ),
    "numbers": (partial(NumbersHead, num_outputs=2), NUMBERS, lambda head, x: NUMBERS.restore(head.predict(x))),
    "share": (
        partial(NumbersHead, num_outputs=2, bounded=True),
        Scaler(["a", "b"], [0.0, 0.0], [1.0, 1.0], bounded=True),
        lambda head, x: head.predict(x),
    ),
    "quantiles": (
        partial(QuantileHead, num_outputs=2),
        NUMBERS,
        lambda head, x: NUMBERS.restore(head.quantiles_at(x, head.quantiles).mT).mT.flatten(-2),
    ),
    "normal": (partial(NormalHead, num_outputs=2), NUMBERS, lambda head, x: distribution(head, x)),
    "student": (partial(StudentTHead, num_outputs=2), NUMBERS, lambda head, x: distribution(head, x)),
}


def distribution(head: Any, outputs: Tensor) -> Tensor:
    location, scale, *freedom = head.entries(outputs)
    scales = torch.tensor(NUMBERS.scales, dtype=torch.float64)
    return torch.stack([NUMBERS.restore(location), scale * scales, *freedom], -1).flatten(-2)


def test_values_are_what_the_head_predicts(run_c: Run) -> None:
    given = {
        name: (
            Bundle(seeded(partial(frames_classifier, head=head, core=PLAIN)), Processor(SCALER, target), {}),
            inputs_of(Processor(SCALER)),
        )
        for name, (head, target, _) in HEADS.items()
    }
    found = run_c(given, predict=True)
    for name, (bundle, inputs) in given.items():
        wanted = HEADS[name][2](bundle.network.head, stepped(bundle, inputs)).float()
        torch.testing.assert_close(found[name], wanted, rtol=0.0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_8_bit_weights_compute_what_their_rounded_network_computes(run_c: Run) -> None:
    from unrolled.deployment.export.c.quantization import quantize

    core = partial(Recurrent, ClockworkCell, hidden_size=12)
    made = {"frames": (partial(frames_classifier, core=core), Processor(SCALER, LABELS)), "text": NETWORKS["tied"]}
    given = {
        name: (Bundle(seeded(make), processor, {}), inputs_of(processor)) for name, (make, processor) in made.items()
    }
    found = run_c(given, int8=True)
    for name, (bundle, inputs) in given.items():
        rounded = stepped(bundle._replace(network=quantize(bundle.network)), inputs)
        torch.testing.assert_close(found[name], rounded, rtol=0.0, atol=1e-5)
        assert (rounded - stepped(bundle, inputs)).abs().max() > 1e-4, "nothing was rounded"
    whole, small = (export_c(given["text"][0], int8=int8).notes for int8 in (False, True))
    assert "8-bit weights change outputs by" in small[-1]
    assert "same in" in small[-1]
    assert len(whole) == 1


def test_tied_weights_are_stored_once() -> None:
    whole, tied = (
        export_c(Bundle(seeded(NETWORKS[name][0]), Processor(TEXT), {})) for name in ("language_model", "tied")
    )
    sizes = [int(re.findall(r"weights ([\d,]+)", each.notes[0])[0].replace(",", "")) for each in (whole, tied)]
    assert sizes[0] - sizes[1] == 4 * (len(SYMBOLS) + 2) * 10


def test_a_network_without_memory_compiles(run_c: Run) -> None:
    core = partial(FeedForward, hidden_size=4)
    bundle = Bundle(seeded(partial(frames_classifier, LastPooling, core=core)), Processor(SCALER, LABELS), {})
    inputs = inputs_of(bundle.processor)
    torch.testing.assert_close(
        run_c({"plain": (bundle, inputs)})["plain"], stepped(bundle, inputs), rtol=0.0, atol=1e-5
    )


def test_a_token_outside_the_vocabulary_changes_nothing(run_c: Run) -> None:
    bundle = Bundle(seeded(language_model), Processor(TEXT), {})
    with pytest.raises(AssertionError):  # the program exits with 3 where a step returns 0
        run_c({"lm": (bundle, torch.tensor([1, 10, 2]))})


def test_the_files_name_what_they_hold() -> None:
    bundle = Bundle(seeded(NETWORKS["last"][0]), NETWORKS["last"][1], {})
    exported = export_c(bundle, name="digits")
    header, code = (exported.files[f"digits.{end}"].decode() for end in ("h", "c"))
    for part in ("#define DIGITS_INPUTS 6", "digits_state", exported.notes[0]):
        assert part in header
    assert "$" not in header + code
    assert '"right \\042\\044\\077"' in code
    assert "malloc" not in code
    assert code.count("#include") == 2  # its header and math.h


def test_what_c_cannot_express_is_refused_by_name_with_a_remedy() -> None:
    def refused(network: nn.Module, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            export_c(Bundle(network.eval(), Processor(SCALER, LABELS), {}))

    head = partial(CategoricalHead, num_classes=4)
    both = SequenceClassifier(FeatureEncoder(FEATURES, CORE, bidirectional=True), head, MeanPooling)
    refused(both, r"bidirectional.*encoder\.frame\.bidirectional=false")
    refused(
        frames_classifier(core=partial(Recurrent, ProjectedLSTMCell, hidden_size=8)), "ProjectedLSTMCell.*model=lstm"
    )
    refused(AutoregressiveDecoder.of_tokens(10, 4, CORE, AdditiveAttention, 6), "without source_size")
    refused(nn.Linear(2, 2), "Linear cannot be written in C; SequenceClassifier")
    hooked = frames_classifier()
    hooked.encoder.core.cells[0].register_forward_hook(lambda *_: None)
    refused(hooked, "GRUCell has hooks")
    broken = frames_classifier()
    nn.init.constant_(broken.head.linear.bias, float("nan"))
    refused(broken, "not finite")
    with pytest.raises(ValueError, match="C name in lower case"):
        export_c(Bundle(frames_classifier().eval(), Processor(SCALER, LABELS), {}), name="1 net")


def test_a_transcriber_has_the_texts_of_its_classes() -> None:
    encoder = FeatureEncoder(FEATURES, CORE, bidirectional=False)
    network = SequenceTagger(encoder, partial(CTCHead, num_classes=TEXT.size))
    exported = export_c(Bundle(network.eval(), Processor(SCALER, TEXT), {}))
    assert "network_labels[10]" in exported.files["network.h"].decode()
    assert '"h"' in exported.files["network.c"].decode()


def test_a_mixture_has_outputs_alone() -> None:
    network = AutoregressiveDecoder(FrameEmbedding(3), CORE, partial(MixtureHead, num_components=2))
    assert "network_predict" not in export_c(Bundle(network.eval(), Processor(SCALER), {})).files["network.h"].decode()
