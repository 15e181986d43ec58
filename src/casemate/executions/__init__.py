"""Executions: code that is run once for a tenant, from acceptance to its one Result."""
