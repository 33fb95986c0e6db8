"""Lightning callbacks. They access a task only through a protocol."""
