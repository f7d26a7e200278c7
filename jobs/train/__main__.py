"""`python -m jobs.train`: the same as `wpcrack train`."""

from jobs.cli import run_command

run_command("train")
