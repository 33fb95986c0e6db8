"""What a run prints and writes for people: terminals, tables, files that appear whole."""
