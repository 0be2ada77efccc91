"""The stages, each run as `python -m stages.NAME`. This is the one file that acts on import."""

import gc
import os
import signal
import sys

# Ctrl-C ends a stage without a traceback, even during imports. A program that imports it is not
# touched.
IS_STAGE = sys.argv[:1] == ["-m"]
if IS_STAGE:
    gc.disable()  # until `run`: it costs a third of the time of imports
if IS_STAGE and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# numpy and matplotlib read these when they are imported: kernels that every x86-64 CPU has, and no
# window, settings or list of fonts of the user's.
os.environ["OPENBLAS_CORETYPE"] = "Prescott"
os.environ["MPLBACKEND"] = "svg"
os.environ["MPLCONFIGDIR"] = ".cache/matplotlib"

# PyTorch and pydantic would import plugins of any installed package, which dvc.yaml does not list.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
