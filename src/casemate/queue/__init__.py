"""Whose turn it is: priority, order of arrival, fairness between tenants."""
