"""The release: the folder that others use. It is proved when written, verified when opened.

Read first `manifest` (model.json), `verify` and `release` (open it), then `export` (ONNX), `card`
(the model card), `reference` (the model in NumPy) and `proof`.
"""
