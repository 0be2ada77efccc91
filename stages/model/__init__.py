"""The model, its file and its device.

Read first `model` (the network between original units), then `signature` (what the file says about
the model) and `device` (CPU or accelerator).
"""
