"""The way out of a sandbox that has one: rules, what is asked for, and the proxy that decides and records."""
