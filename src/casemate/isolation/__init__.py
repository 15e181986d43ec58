"""The sandbox: its plan, which is pure, and the native launcher that carries it out."""
