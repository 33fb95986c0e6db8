"""Networks in the form of the Hugging Face Hub: folders with a model card, and repositories."""
