"""The release: the folder that others use. It is proved when written, verified when opened.

Read first `manifest` (model.json) and `release` (open and verify), then `export` (ONNX), `card`
(the model card) and `proof`.
"""
