"""From `Encoded` to tokens. Told nothing, a decoder is a language model."""

from unrolled.decoders.attentive import AttentiveDecoder as AttentiveDecoder
from unrolled.decoders.base import Decoded as Decoded
from unrolled.decoders.base import Decoder as Decoder
from unrolled.decoders.base import DecoderState as DecoderState
from unrolled.decoders.recurrent import RecurrentDecoder as RecurrentDecoder
