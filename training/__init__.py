"""How the adapters that this project ships were made: `python -m training <adapter>`."""
