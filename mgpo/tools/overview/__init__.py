"""What training will see: questions, pictures, lengths, what is left out, and what the model is told."""
