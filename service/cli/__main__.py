"""`python -m service.cli` is `reid`."""

from service.cli import app

app()
