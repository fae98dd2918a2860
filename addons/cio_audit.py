"""Audit Customer.io traffic in your own mitmdump: `mitmdump -s addons/cio_audit.py --set cio_config=cio-proxy.yaml`."""

from cio_proxy.sources.mitm.script import Script

addons = [Script()]
