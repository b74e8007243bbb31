"""The lab: train -> attack -> judge -> helpfulness -> gate, methods x seeds, from one YAML file.

`spec` reads the file, `train` makes the checkpoints, `pool` puts seeds together, `lab` is the order of it all.
"""

from harness.lab.lab import Lab, run_lab
from harness.lab.spec import LabSpec, Trial, read_spec

__all__ = ["Lab", "LabSpec", "Trial", "read_spec", "run_lab"]
