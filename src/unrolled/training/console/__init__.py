"""What people see and send: the terminal, Markdown tables, files that are replaced atomically, and signals."""
