"""Lets pytest find the package and the shared test code without installing anything, in child processes too."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
PATHS = [str(HERE.parent), str(HERE)]
sys.path[:0] = PATHS
os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
