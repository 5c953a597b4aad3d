"""The loaded backbone: vision tower, projector and language model, and how inputs reach them."""
