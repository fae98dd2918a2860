"""Health, metrics and findings over HTTP, on a port of their own."""

from cio_proxy.admin.app import Admin

__all__ = ["Admin"]
