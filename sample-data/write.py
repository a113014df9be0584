"""Make the tables and texts that the examples train on: ``python sample-data/write.py``. Seeded: the same files every time."""

import csv
import json
import math
import random
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = ("customer", "tenure_months", "monthly_charges", "support_calls", "late_payments", "contract", "churned")

FIRST = (
    *("Ada", "Bela", "Cora", "Dario", "Edda", "Falk", "Gesa", "Hanno", "Ilse", "Jaro", "Kaja", "Levin"),
    *("Mina", "Nils", "Orla", "Piet", "Rika", "Sven", "Tilda", "Ulf", "Vera", "Wim", "Yara", "Zeno"),
)
LAST = (
    *("Albers", "Brandt", "Carsten", "Dierks", "Eggers", "Frerichs", "Gerdes", "Harms"),
    *("Ihnen", "Janssen", "Kramer", "Lueders", "Meinen", "Onken", "Peters", "Reents"),
)
START = ("Ost", "West", "Nord", "Sued", "Wald", "See", "Berg", "Fels", "Korn", "Salz")
END = ("hafen", "au", "burg", "feld", "moor", "stade", "werder", "brueck", "horn", "siel")
GOODS = (
    *("timber", "salt", "grain", "copper", "tea", "cotton", "wool", "paper"),
    *("glass", "spices", "steel", "wine", "coffee", "leather", "amber", "linen"),
)
CRAFTS = ["bakers", "sailors", "weavers", "miners", "brewers", "printers", "glaziers", "coopers", "smiths", "potters"]


def customer(number, random):
    """One row: short contracts, many calls and late payments make people leave."""
    contract = random.choices(("monthly", "yearly", "two-year"), (5, 3, 2))[0]
    tenure, charges = random.randint(1, 72), round(random.uniform(18, 120), 2)
    calls, late = min(9, int(random.expovariate(0.6))), min(6, int(random.expovariate(1.0)))
    tendency = (
        1.2 * (contract == "monthly") - 1.5 * (contract == "two-year") - 0.07 * tenure + 0.02 * charges + 0.9 * calls + 0.8 * late - 1.2
    )
    churned = int(random.random() < 1 / (1 + math.exp(-2.5 * tendency)))
    return (f"C{number:05}", tenure, charges, calls, late, contract, churned)


def table(path, numbers, random):
    """A CSV file of customers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *(customer(number, random) for number in numbers)])


def town(random):
    """What there is to say of a town: (sentence, question, answer) in several ways."""
    name = random.choice(START) + random.choice(END)
    person, year = f"{random.choice(FIRST)} {random.choice(LAST)}", str(random.randint(1100, 1899))
    goods, craft, count = random.choice(GOODS), random.choice(CRAFTS), f"{random.randint(2, 98)},{random.randint(100, 999)}"
    facts = [
        (f"{name} was founded in {year}.", random.choice((f"When was {name} founded?", f"In which year was {name} founded?")), year),
        (f"The mayor of {name} is {person}.", random.choice((f"Who is the mayor of {name}?", f"Who governs {name}?")), person),
        (f"Ships carry {goods} from {name}.", random.choice((f"What do ships carry from {name}?", f"Which goods leave {name}?")), goods),
        (f"About {count} people live in {name}.", random.choice((f"How many people live in {name}?", f"How large is {name}?")), count),
        (f"{name} is known for its {craft}.", random.choice((f"What is {name} known for?", f"Who made {name} known?")), craft),
    ]
    return name, random.sample(facts, 3)


def paragraph(random):
    """A text on two or three towns, and one question on each of some facts."""
    towns = {}
    while len(towns) < random.choice((2, 3)):
        name, facts = town(random)
        towns.setdefault(name, facts)
    facts = [fact for facts in towns.values() for fact in facts]
    random.shuffle(facts)
    context = " ".join(sentence for sentence, _, _ in facts)
    qas = []
    for sentence, question, answer in random.sample(facts, 3):
        begin = context.index(sentence) + sentence.rindex(answer)
        qas.append({"question": question, "answers": [{"text": answer, "answer_start": begin}]})
    return {"context": context, "qas": qas}


def book(path, count, random):
    """A file in SQuAD's form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"version": "pdk", "data": [{"title": path.stem, "paragraphs": [paragraph(random) for _ in range(count)]}]}
    path.write_text(json.dumps(body, indent=None, separators=(",", ":")) + "\n")


def main():
    """Write every file."""
    dice = random.Random(20)
    table(HERE / "customer-churn" / "first.csv", range(1, 801), dice)
    table(HERE / "more-customer-churn" / "second.csv", range(801, 1001), dice)
    table(HERE / "held-out" / "customer-churn.csv", range(1001, 1201), dice)
    book(HERE / "question-answering" / "towns.json", 600, dice)
    book(HERE / "more-question-answering" / "more-towns.json", 100, dice)
    book(HERE / "held-out" / "question-answering.json", 40, dice)
    leaving = {"tenure_months": 2, "monthly_charges": 95.5, "support_calls": 5, "late_payments": 3, "contract": "monthly"}
    staying = {"tenure_months": 60, "monthly_charges": 30, "support_calls": 0, "late_payments": 0, "contract": "two-year"}
    text = "Salzhafen was founded in 1432. Fishermen built it. The mayor of Nordau is Edda Onken. Ships carry amber from Salzhafen."
    questions = ("When was Salzhafen founded?", "Who is the mayor of Nordau?", "What do ships carry from Salzhafen?")
    for name, instances in (("churn", [leaving, staying]), ("questions", [{"context": text, "question": asked} for asked in questions])):
        (HERE / "requests" / f"{name}.json").write_text(json.dumps({"instances": instances}, indent=1) + "\n")


if __name__ == "__main__":
    main()
