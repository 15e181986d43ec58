"""What the operating system offers, and the only place that knows its calls and files."""
