"""Output for people: the terminal, Markdown tables, and files that are replaced atomically."""
