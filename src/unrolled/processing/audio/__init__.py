"""Audio: reading files as samples, and computing frames of features from samples, with torch alone."""
