"""`python -m jobs.infer`: the same as `wpcrack infer`."""

from jobs.cli import run_command

run_command("infer")
