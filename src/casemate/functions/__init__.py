"""Functions: named, versioned source that is called with JSON, one item at a time or in batches."""
