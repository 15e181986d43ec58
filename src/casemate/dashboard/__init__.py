"""Pages for people: server-rendered, without hosts of others."""
