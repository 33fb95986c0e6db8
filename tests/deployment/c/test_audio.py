"""The audio front end as C beside torch's features, from samples in pieces of any length."""

import math
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AudioFeatures,
    Bundle,
    CategoricalHead,
    FeatureEncoder,
    LabelEncoder,
    LSTMCell,
    MeanPooling,
    Processor,
    Recurrent,
    SequenceClassifier,
)
from unrolled.deployment import export_c

Compiler = Callable[..., Path]
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {"rate": 8000, "normalization": "none"},
    "running": {
        "rate": 8000,
        "num_mels": 20,
        "window": 0.032,
        "hop": 0.02,
        "preemphasis": 0.97,
        "normalization": "running",
    },
    "fitted": {"rate": 16000, "kind": "mfcc", "low": 100.0, "high": 7000.0, "normalization": "fitted"},
    "touching": {"rate": 8000, "window": 0.02, "hop": 0.02, "num_mels": 12, "normalization": "running", "prior": 5},
    "narrow": {
        "rate": 4000,
        "window": 0.01,
        "hop": 0.005,
        "num_mels": 30,
        "normalization": "none",
    },  # bands without a bin
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
static {name}_state state_of_{name};
static void run_{name}(void) {{
  static float samples[{count}], frame[{upper}_INPUTS], outputs[{upper}_OUTPUTS];
  const float *next = samples;
  int left = 0, piece = 1;
  if (fread(samples, sizeof *samples, {count}, stdin) != {count}) return;
  {name}_init(&state_of_{name});
  while (next + left < samples + {count}) {{ /* pieces of 1, 2, 3, ... samples */
    left += piece++;
    if (next + left > samples + {count}) left = (int)(samples + {count} - next);
    while ({name}_frame(&state_of_{name}, &next, &left, frame)) {{
      {name}_step(&state_of_{name}, frame, outputs);
      fwrite(frame, sizeof *frame, {upper}_INPUTS, stdout);
      fwrite(outputs, sizeof *outputs, {upper}_OUTPUTS, stdout);
    }}
  }}
}}
"""


def speech(rate: int, seconds: float = 0.7) -> Tensor:
    """Harmonics with a moving pitch and loudness, and noise, as loud as a voice."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(int(rate * seconds)) / rate
    pitch = 2 * math.pi * (120 * time + 30 * time.square())
    voice = torch.stack([torch.sin(n * pitch) / n for n in range(1, 12)]).sum(0)
    return 0.2 * voice * torch.sin(math.pi * time / seconds) + 0.01 * torch.randn(len(time), generator=generator)


def classifier(options: dict[str, Any]) -> Bundle:
    torch.manual_seed(0)
    features = AudioFeatures(**options)
    if features.needs_fit:
        features = features.fit([speech(features.rate), 0.1 * torch.randn(4000)])
    encoder = FeatureEncoder(features.output_size, partial(Recurrent, LSTMCell, hidden_size=8), bidirectional=False)
    network = SequenceClassifier(encoder, partial(CategoricalHead, num_classes=3), MeanPooling)
    return Bundle(network.eval(), Processor(features, LabelEncoder(["yes", "no", "stop"])), {})


@torch.no_grad()
def test_frames_and_outputs_equal_those_of_torch(compile_c: Compiler) -> None:
    bundles = {name: classifier(options) for name, options in FEATURES.items()}
    samples = {name: speech(bundle.processor.source.rate) for name, bundle in bundles.items()}
    runs = [RUN.format(name=name, upper=name.upper(), count=len(samples[name])) for name in bundles]
    main = MAIN.format(
        includes="\n".join(f'#include "{name}.h"' for name in bundles),
        functions="\n".join(runs),
        calls="\n".join(f"  run_{name}();" for name in bundles),
    )
    program = compile_c(main, {name: export_c(bundle, name=name) for name, bundle in bundles.items()})
    fed = b"".join(values.numpy().tobytes() for values in samples.values())
    done = subprocess.run([str(program)], input=fed, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[:4000]
    numbers = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32)
    for name, bundle in bundles.items():
        frames = bundle.processor.source(samples[name])
        lengths = torch.tensor([len(frames)])
        shares = [n / len(frames) for n in range(1, len(frames) + 1)]
        outputs = bundle.network.predict_prefixes(frames.unsqueeze(0), lengths, shares)[0]
        found, numbers = numbers.split(
            [len(frames) * (frames.shape[1] + 3), len(numbers) - len(frames) * (frames.shape[1] + 3)]
        )
        got_frames, got_outputs = found.view(len(frames), -1).split([frames.shape[1], 3], dim=1)
        torch.testing.assert_close(got_frames, frames, rtol=0.0, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
        torch.testing.assert_close(got_outputs, outputs, rtol=0.0, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    assert len(numbers) == 0


def test_features_that_need_later_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="normalization=running"):
        export_c(classifier({"rate": 8000, "normalization": "utterance"}))
    with pytest.raises(ValueError, match=r"hop=0.05 is longer than window=0.025"):
        export_c(classifier({"rate": 8000, "normalization": "none", "hop": 0.05}))
