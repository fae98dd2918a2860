from cio_proxy.admin.app import Admin

__all__ = ["Admin"]
