"""What the python-backend model shares between engines: requests, text, streams, metrics."""
