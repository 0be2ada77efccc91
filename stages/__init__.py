"""The stages, each run as `python -m stages.NAME`."""

import signal
import sys

# A stage that is interrupted, be it while it imports, ends without a traceback; not who imports it.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
