"""A user's table: read it, check every cell, and write it again with predictions.

Read `table` first, then `cells`, `columns` and `spool`. `cures` and `hints` help with faulty
tables, `line` is the sample table, and `table_output` writes a table.
"""
