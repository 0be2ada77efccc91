"""The prepared rows: which row goes to which split, and their statistics.

Read first `split` (files of blocks), then `categories` (text as features of 0 and 1) and
`exact_sum` (sums that do not depend on the order).
"""
