#!/usr/bin/env python3
"""Adds up the windows of a month, as `jackpot windows --jsonl` prints them, and holds each level to its books.

    jackpot windows --seconds 3600 --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --jsonl | month.py

Prints a line for each level, then one for the share of each operator; exit 1 where anything does not balance.
"""

import json
import sys
from collections import defaultdict
from decimal import Decimal, getcontext

getcontext().prec = 60
months = {}
shares = defaultdict(Decimal)
for line in sys.stdin:
    window = json.loads(line)
    level = (window["pool"], window["level"], window["currency"])
    month = months.setdefault(level, {"opening": Decimal(window["opening"]), "closing": Decimal(window["opening"])})
    if Decimal(window["opening"]) != month["closing"]:
        sys.exit(f"{level}: the window from {window['window_start']} does not begin where the one before ended")
    month["closing"] = Decimal(window["closing"])
    for column in ("contributed", "house", "adjusted", "paid"):
        month[column] = month.get(column, Decimal(0)) + Decimal(window[column])
    for operator, share in window["by_operator"].items():
        shares[level + (operator,)] += Decimal(share["contributed"])
for level, month in sorted(months.items()):
    made = month["opening"] + month["contributed"] + month["house"] + month["adjusted"] - month["paid"]
    if made != month["closing"]:
        sys.exit(f"{level}: {made} is not {month['closing']}")
    if sum(share for name, share in shares.items() if name[:3] == level) != month["contributed"]:
        sys.exit(f"{level}: the operators' shares are not the level's contributions")
    print(*level, *(f"{name}={value:f}" for name, value in month.items()))
for name, share in sorted(shares.items()):
    print(*name, f"contributed={share:f}")
