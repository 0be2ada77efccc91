"""A user's table: read it, check every cell, and write it again with predictions.

Read `table` first, then `cells` and `columns`, which also says what to do about faulty cells.
`line` is the sample table, and `table_output` writes a table.
"""
