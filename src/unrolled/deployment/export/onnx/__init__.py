"""Export to ONNX: `model` builds the models, `operators` maps cells to ONNX's recurrent operators, `quantization`
stores weights as 8-bit integers.

`beam_search` is a file for users, written beside the models of sequence-to-sequence networks. Nothing here imports it.
"""
