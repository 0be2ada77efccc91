"""The prepared rows: which row goes to which split, their statistics, and their predictions.

Read first `split` (files of blocks), then `categories` (text as features of 0 and 1), and
`ordered_sum` (sums in one order).
"""
