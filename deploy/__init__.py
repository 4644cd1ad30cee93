"""What becomes of the modules outside torch: `python -m deploy`."""
