"""The model: takes and returns the table's own units; can be saved and loaded.

Read first `model`, then `signature` (what its file says of it) and `device` (CPU or accelerator).
"""
