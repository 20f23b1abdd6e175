"""`python -m servescope.cli`."""

from servescope.cli.main import main

main()
