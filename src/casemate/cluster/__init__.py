"""Messages between the service and its nodes, and what carries them."""
