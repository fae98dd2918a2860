"""A runtime-auditing HTTP proxy for Customer.io integrations."""
