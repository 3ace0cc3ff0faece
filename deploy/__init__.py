"""Ways to run the system: one command on one machine, images, Compose, Kubernetes."""
