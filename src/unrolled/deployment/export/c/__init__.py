"""Networks as C99: `program` puts together what the other modules write."""
