"""Audit Customer.io traffic in your own mitmproxy, mitmdump or mitmweb.

`mitmweb -s addons/cio_audit.py --set cio_config=cio-proxy.yaml`: flows with findings are marked and commented.
"""

from cio_proxy.sources.mitm.script import Script

addons = [Script()]
