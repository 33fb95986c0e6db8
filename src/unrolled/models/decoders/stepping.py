"""One step of a language model without gradients, on the shortest path: an embedding, a recurrent network, a head."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells.hooks import are_untouched
from unrolled.heads.base import Head
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.base import Decoded, DecoderState
from unrolled.models.embeddings import TokenEmbedding
from unrolled.modes import PLAIN_TENSORS


def step_directly(modules: Mapping[str, Any], tokens: Any, state: Any) -> Decoded | None:
    """Compute a step of a decoder without attention and conditions, where `modes.direct` is true.

    It calls what `forward` of the embedding and of the head call. Weights are read at each call, so that no change of
    a weight can be missed.

    Args:
        modules: the decoder's modules.
        tokens: (batch,) token ids. They need not have been checked.
        state: the state before them. It need not have been checked.

    Returns:
        The predictions. None if the modules themselves are to be called: for other modules than those of a language
        model, for modules with hooks or computed weights, and for an argument that isn't as it should be.
    """
    embedding, core, head = modules["embedding"], modules["steps"], modules["head"]
    if type(embedding) is not TokenEmbedding or type(core) is not Recurrent or type(head).forward is not Head.forward:
        return None
    linear = vars(head)["_modules"]["linear"]
    if type(linear) is not nn.Linear or type(tokens) not in PLAIN_TENSORS or type(state) is not DecoderState:
        return None
    if core.backend == "loop" or not are_untouched(embedding, head, linear):
        return None
    before, attention, context = state
    if tokens.dim() != 1 or attention is not None or context is not None or embedding.max_norm is not None:
        return None
    vectors: Tensor = torch.embedding(vars(embedding)["_parameters"]["weight"], tokens)
    scale = embedding.scale
    found = core.step_directly(None, before, vectors if scale == 1.0 else vectors * scale)
    if found is None:
        return None
    features, after = found
    of_linear = vars(linear)["_parameters"]
    parameters = nn.functional.linear(features, of_linear["weight"], of_linear["bias"])
    return Decoded(parameters, None, DecoderState(after))
