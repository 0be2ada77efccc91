"""The prepared rows: which row goes to which split, and their statistics.

Read first `split` (files of blocks), then `categories` (text as features of 0 and 1),
`ordered_sum` (sums in one order) and `predictions`.
"""
