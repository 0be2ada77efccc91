"""What stands behind the loop in `stages/train.py`.

Read first `batches` (the rows of a step) and `gradient` (loss and gradient, block by block), then
`checkpoint`, `fingerprint` and `resume` (a stopped training goes on), and `ranks` (torchrun).
"""
