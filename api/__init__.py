"""All that faces the outside: HTTP, command line, pages."""
