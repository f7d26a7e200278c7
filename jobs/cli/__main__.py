"""`python -m jobs.cli`: the `wpcrack` command."""

from jobs.cli import app

app(prog_name="wpcrack")
