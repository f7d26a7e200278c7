"""`python -m jobs.demo`: the same as `wpcrack demo`."""

from jobs.cli import run_command

run_command("demo")
