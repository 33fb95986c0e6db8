"""Decoders, which predict tokens or frames step by step, given an encoded source or without one."""
