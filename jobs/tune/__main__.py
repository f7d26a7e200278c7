"""`python -m jobs.tune`: the same as `wpcrack tune`."""

from jobs.cli import run_command

run_command("tune")
