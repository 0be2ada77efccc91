"""The stages, each run as `python -m stages.NAME`. This is the one file that acts on import."""

import ctypes
import gc
import os
import signal
import sys
import time

try:
    import fcntl  # noqa: F401
except ImportError:
    sys.exit("The stages need Linux or macOS. On Windows, run them in WSL.")

START_SECONDS = time.time()

if sys.argv[:1] == ["-m"]:  # a stage, not a program that imports one
    gc.disable()  # until `run`: it costs a third of the time of imports
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback, even during imports
    if sys.platform == "linux" and {"DVC_STAGE", "RANK"} & {*os.environ}:
        # The kernel sends SIGTERM if the parent, DVC or torchrun, dies: no stage writes on alone.
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

# numpy and matplotlib read these when they are imported: kernels that every x86-64 CPU has, and no
# window, settings or list of fonts of the user's.
os.environ["OPENBLAS_CORETYPE"] = "Prescott"
os.environ["MPLBACKEND"] = "svg"
os.environ["MPLCONFIGDIR"] = ".cache/matplotlib"

# PyTorch and pydantic would import plugins of any installed package, which dvc.yaml does not list.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
