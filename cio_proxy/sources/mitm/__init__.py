"""The live door: an embedded mitmproxy, and the addon that audits what passes."""

from cio_proxy.sources.mitm.addon import AuditAddon
from cio_proxy.sources.mitm.server import Door

__all__ = ["AuditAddon", "Door"]
