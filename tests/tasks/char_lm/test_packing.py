"""Documents packed side by side are scored as if each were read alone, whatever the windows."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled import ByteTokenizer, Processor
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.data.plans import StreamPlan
from unrolled.training.data.streams import token_window
from unrolled.training.data.tokens import write_tokens
from unrolled_tasks.char_lm import CharLM

TOKENIZER = ByteTokenizer()
DOCUMENTS = ["to be or not to be", "that", "is the question", "w", "hether 'tis nobler in the mind", "to suffer the"]
NETWORK: dict[str, Any] = {
    "_target_": "unrolled.AutoregressiveDecoder",
    "embedding": {"_target_": "unrolled.TokenEmbedding", "vocabulary_size": TOKENIZER.size, "size": 6},
    "core": {
        "_target_": "unrolled.Recurrent",
        "_partial_": True,
        "cell": {"_target_": "unrolled.LSTMCell", "_partial_": True},
        "hidden_size": 7,
        "num_layers": 2,
        "learned_initial_state": True,
    },
    "head": {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": TOKENIZER.size},
}


@pytest.mark.parametrize(
    "options",
    [
        {"rows": 1, "window": 7},
        {"rows": 3, "window": 100},
        {"rows": 2, "window": 9, "stride": 4, "shift": True},
        {"rows": 2, "window": 5, "random_length": True},
    ],
)
def test_packed_documents_are_those_read_alone(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = CharLM(NETWORK, Processor(TOKENIZER)).double()
    tokens = write_tokens(tmp_path / "text", TOKENIZER, DOCUMENTS)
    plan = StreamPlan(tokens.lengths, concatenate=False, **options)

    losses = [
        task.loss(window, "train")
        for window in PlannedLoader(plan, tokens, partial(token_window, start=TOKENIZER.start))
    ]

    total, count = sum(loss.total for loss in losses), sum(int(loss.count) for loss in losses)
    expected = torch.zeros((), dtype=torch.float64)
    for document in DOCUMENTS:
        ids = torch.tensor([TOKENIZER.encode(document)])
        inputs = torch.cat([torch.tensor([[TOKENIZER.start]]), ids[:, :-1]], 1)
        expected += task.network.head.loss(task.network(inputs).parameters, ids).total
    assert count == sum(map(len, DOCUMENTS))
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
