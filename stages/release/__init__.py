"""The release: the folder that others use. It is proved when written, verified when opened.

Read first `manifest` (model.json), `release`, `export` (ONNX), `card` and `proof`.
"""
