"""The options of tasks: each dataclass checks its values, whether or not a network uses them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import nn
from torch.optim import AdamW

from unrolled.training.tasks.dynamic_evaluation import DynamicEvaluation
from unrolled.training.tasks.optimization import Optimization
from unrolled.training.tasks.seq2seq_options import GenerationOptions, TeacherForcingOptions
from unrolled_tasks.captioning.options import CaptionOptions, TrunkOptions
from unrolled_tasks.char_lm.task import SampleOptions
from unrolled_tasks.classification.options import LabelOptions, ReportOptions

NAN = float("nan")

WRONG: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (Optimization, {"l1": -1.0}, "l1=-1.0"),
    (Optimization, {"l2": NAN}, "l2=nan"),
    (TeacherForcingOptions, {"label_smoothing": 1.0}, "label_smoothing is 1.0"),
    (TeacherForcingOptions, {"scheduled_sampling": NAN}, "scheduled_sampling is nan"),
    (TeacherForcingOptions, {"coverage": -1.0}, "coverage=-1.0"),
    (TeacherForcingOptions, {"hard": {"decay": 5.0}}, "decay=5.0"),
    (TeacherForcingOptions, {"hard": {"dekay": 0.5}}, "hard has no 'dekay'; it takes weight, entropy, decay"),
    (GenerationOptions, {"search": {"num_beam": 3}}, "search has no 'num_beam'; it takes num_beams"),
    (GenerationOptions, {"search": {"num_beams": 0}}, "num_beams=0"),
    (GenerationOptions, {"validation_num_beams": 0}, "validation_num_beams=0"),
    (GenerationOptions, {"num_samples": -1}, "num_samples=-1"),
    (TrunkOptions, {"unfreeze_at_step": -1}, "unfreeze_at_step=-1"),
    (TrunkOptions, {"trunk_lr": 0.1}, "needs unfreeze_at_step"),
    (TrunkOptions, {"trunk_lr": NAN, "unfreeze_at_step": 0}, "trunk_lr=nan"),
    (CaptionOptions, {"gallery": -1}, "gallery=-1"),
    (CaptionOptions, {"critic": {"samples": -3}}, "samples=-3"),
    (CaptionOptions, {"critic": {"sampels": 3}}, "critic has no 'sampels'; it takes samples, baseline, bleu"),
    (CaptionOptions, {"critic": {"references": ()}}, "critic has no 'references'"),
    (SampleOptions, {"temperature": -1.0}, "temperature=-1.0"),
    (SampleOptions, {"temperature": NAN}, "temperature=nan"),
    (SampleOptions, {"sample_length": -5}, "sample_length=-5"),
    (DynamicEvaluation.from_options, {"options": {"rat": 1}}, "dynamic has no 'rat'; it takes rate, segment"),
    (DynamicEvaluation.from_options, {"options": 0.1}, "dynamic is 0.1, expected rate, segment"),
    (LabelOptions, {"label_smoothing": NAN}, "label_smoothing=nan"),
    (LabelOptions, {"class_weights": "balance"}, "class_weights='balance'"),
    (ReportOptions, {"prefix_fractions": [0.0]}, "prefix_fractions="),
    (ReportOptions, {"num_mistakes": -1}, "num_mistakes=-1"),
]


@pytest.mark.parametrize(("made", "options", "message"), WRONG)
def test_a_wrong_value_is_refused(made: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f".*{message}"):
        made(**options)


def test_an_optimizer_is_the_first_argument() -> None:
    network = nn.Linear(3, 2)

    optimizer = Optimization(partial(AdamW, lr=0.25)).configure([(network.parameters(), {})], num_steps=1)

    assert isinstance(optimizer, AdamW)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
