"""Decoders, which predict tokens, given an encoded source or without one as language models."""
