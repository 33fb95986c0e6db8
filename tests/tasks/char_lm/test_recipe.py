"""The recipe of tiny_shakespeare.yaml computes what the plain loop that it is compared with computes."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from unrolled import AutoregressiveDecoder
from unrolled.descriptions import build
from unrolled.training.configuration.overrides import config_folder

PLAIN = Path(__file__).parents[3] / "benchmarks" / "plain_char_lm.py"
VOCABULARY, HIDDEN = 11, 16


@pytest.fixture
def recipe() -> AutoregressiveDecoder:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", ["experiment=char_lm/tiny_shakespeare", "data.files=a.txt", "model.hidden_size=16"])
    config.sizes = {"vocabulary": VOCABULARY}
    return build(OmegaConf.to_container(config.network, resolve=True)).double()


def weights(embedding: nn.Module, layers: Any, output: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for number, part in enumerate((embedding, *layers, output)):
        for name, parameter in part.named_parameters():
            yield f"{number}.{name.removesuffix('_l0')}", parameter


def test_the_recipes_network_is_the_plain_one_dropout_included(recipe: AutoregressiveDecoder) -> None:
    plain = runpy.run_path(str(PLAIN))["Network"](VOCABULARY, HIDDEN).double()
    ours = dict(weights(recipe.embedding, recipe.core.cells, recipe.head.linear))
    theirs = dict(weights(plain.embedding, (plain.first, plain.second), plain.output))
    assert ours.keys() == theirs.keys()
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(ours[name])
    # torch draws a mask in the order of memory, which is time first after its LSTM; ours is in the order of the axes.
    plain.dropout.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous())
    ids = torch.randint(VOCABULARY, (3, 9))

    torch.manual_seed(3)
    logits = recipe.train()(ids).parameters
    torch.manual_seed(3)
    expected, _ = plain.train()(ids)

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    logits.square().sum().backward()
    expected.square().sum().backward()
    for name, parameter in theirs.items():
        torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=0, atol=1e-12)
    assert not torch.allclose(logits, recipe.eval()(ids).parameters)
