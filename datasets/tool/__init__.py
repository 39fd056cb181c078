"""What `python -m datasets` does: list, check, prepare and show."""
