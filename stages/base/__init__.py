"""What every stage stands on.

Read `errors` (one sentence instead of a traceback), `params` (with `yaml12`) and `files` first.
Then read how a stage starts and ends: `process` and `outputs`. Last come `threads` and
`progress`.
"""
