"""From a customer to the numbers that the model takes, in training and at the endpoint alike.

A request holds ``{"instances": [{"tenure_months": 3, "monthly_charges": 79.5, "support_calls": 4, "late_payments": 2,
"contract": "monthly"}]}``; the answer is ``{"churn": 1, "probability": 0.93}`` for each.
"""

from typing import Any

import torch

NUMBERS = ("tenure_months", "monthly_charges", "support_calls", "late_payments")
CONTRACTS = ("monthly", "yearly", "two-year")
WIDTH = len(NUMBERS) + len(CONTRACTS)


def features(row: Any) -> list[float]:
    """Return a customer as WIDTH floats.

    Raises:
        ValueError: a column is missing, or holds what it cannot.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a customer is an object with {', '.join((*NUMBERS, 'contract'))}, not a {type(row).__name__}")
    found = []
    for name in NUMBERS:
        try:
            found.append(float(row[name]))
        except KeyError:
            raise ValueError(f"the column {name!r} is missing") from None
        except (TypeError, ValueError):
            raise ValueError(f"{name} is {row[name]!r}: a number is expected") from None
        if not 0 <= found[-1] < 1e6:
            raise ValueError(f"{name} is {row[name]!r}: a number from 0 to a million is expected")
    if row.get("contract") not in CONTRACTS:
        raise ValueError(f"contract is {row.get('contract')!r}: one of {', '.join(CONTRACTS)} is expected")
    return [*found, *(float(row["contract"] == name) for name in CONTRACTS)]


class ChurnHandler:
    """A handler in TorchServe's form."""

    def initialize(self, context: Any) -> None:
        """Load the model; `context.system_properties` says where it is."""
        properties, manifest = context.system_properties, context.manifest
        self.model = torch.jit.load(f"{properties['model_dir']}/{manifest['model']['serializedFile']}", map_location="cpu").eval()

    def handle(self, data: list[Any], context: Any) -> list[dict[str, Any]]:
        """Return a prediction for each customer."""
        del context
        rows = torch.tensor([features(row) for row in data])
        with torch.inference_mode():
            chances = torch.sigmoid(self.model(rows)).tolist()
        return [{"churn": int(chance >= 0.5), "probability": round(chance, 4)} for chance in chances]
