"""The way out of a sandbox that has one: rules, the requests that ask for it, and the proxy that decides and records."""
