"""Pages for people: HTML from the server, updated over server-sent events."""
