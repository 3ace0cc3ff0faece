"""A process's `/metrics`, read as Prometheus reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Metrics:
    """One scrape: (name of the sample, its labels) → value."""

    values: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """Sum of the samples of that name that have these labels, and maybe more.

        Raises KeyError when there is none.
        """
        wanted = frozenset(labels.items())
        found = [
            value for (other, has), value in self.values.items() if other == name and wanted <= has
        ]
        if not found:
            raise KeyError(f"{name} {labels}")
        return sum(found)


def scrape(url: str) -> Metrics:
    """Raises httpx.HTTPError when it cannot be read."""
    text = httpx.get(url, timeout=TIMEOUT_S, trust_env=False).raise_for_status().text
    return Metrics(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )
