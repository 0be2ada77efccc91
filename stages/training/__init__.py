"""The machinery behind the training loop in `stages/train.py`.

Read first `batches` (the rows of a step) and `gradient` (loss and gradient, block by block); then
`checkpoint` (how a stopped training continues) and `ranks` (torchrun).
"""
