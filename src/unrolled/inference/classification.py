"""Labels and numbers by a trained network."""

import torch
from torch import Tensor

from unrolled.codecs import LabelCodec, NumberCodec


def answers(outputs: Tensor, codec: LabelCodec | NumberCodec) -> Tensor:
    """What a classifier's outputs (…, outputs) mean: probabilities of the labels, or numbers in their own units."""
    if isinstance(codec, LabelCodec):
        return outputs.sigmoid() if codec.multiple else outputs.softmax(-1)
    if codec.bounded:
        return outputs.sigmoid()
    return outputs * outputs.new_tensor(codec.scales) + torch.tensor(codec.centers).to(outputs)
