"""The folder that others use: written, proved, and verified whenever it is opened.

Read first `manifest` (model.json) and `release` (open and verify), then `export` (ONNX), `card`
(the model card) and `proof`.
"""
