"""Records: one schema, statements, migrations."""
