"""`python -m cio_proxy` is the command `cio-proxy`."""

from cio_proxy.cli import main

main(prog_name="cio-proxy")
