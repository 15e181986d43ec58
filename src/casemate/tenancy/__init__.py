"""Who asks and what they may: tenants, keys, scopes, rates."""
