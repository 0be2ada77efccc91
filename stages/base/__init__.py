"""What every stage stands on.

Read first `errors` (one sentence instead of a traceback), `params` (with `yaml12`) and `files`,
then how a stage starts and ends: `process`, `inputs` and `outputs`; then `threads` and `progress`.
"""
