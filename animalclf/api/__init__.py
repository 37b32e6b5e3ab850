"""The Python API: a function for each command, with keyword arguments named as its flags, and `load` for a model in
this process.

A call uses the Ray that this process is connected to and leaves it as it was. If there is none, the first call that
needs Ray joins the cluster that RAY_ADDRESS names or starts a small one on this machine, which later calls use again;
it ends with the process, at `leave_ray()`, or when a call is interrupted. Raises UserError for what the caller can
fix, before any long work.
"""

from animalclf.api.inference import ensemble, evaluate, explain, export, load, predict, report
from animalclf.api.labelling import labels, suggest
from animalclf.api.planning import plan_comparison, plan_training
from animalclf.api.serving import serve
from animalclf.api.training import compare, prepare, train
from animalclf.cluster import leave_ray
from animalclf.errors import UserError

__all__ = [
    "UserError",
    "compare",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "labels",
    "leave_ray",
    "load",
    "plan_comparison",
    "plan_training",
    "predict",
    "prepare",
    "report",
    "serve",
    "suggest",
    "train",
]
