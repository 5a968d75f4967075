"""Where base models come from, and what they are: files first, tensors only when an engine asks for them."""
