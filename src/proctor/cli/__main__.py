"""`python -m proctor.cli`, as the supervisor starts its children."""

from proctor.cli.main import main

main(prog_name="proctor")
