"""What a prompt says and carries, in training and evaluation. Its content key never changes."""
