"""What the workers share of encoder models: finding, running and batching them."""
