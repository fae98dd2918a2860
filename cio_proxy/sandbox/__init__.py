"""An emulated Customer.io: it keeps what it is sent, and says what the real one would lose."""

from cio_proxy.sandbox.regions import Regions
from cio_proxy.sandbox.server import Sandbox

__all__ = ["Regions", "Sandbox"]
