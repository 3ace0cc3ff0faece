"""How a model is named to people, the same in every process."""


def model_label(name: str, fingerprint: str) -> str:
    """The last part of the model's name, and enough of its fingerprint to tell two apart."""
    return f"{name.rpartition('/')[2]}@{fingerprint[:8]}"
