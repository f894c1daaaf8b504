"""What the runs say: medians over rounds, as a table, as JSON and as a chart."""

import json
import statistics

from . import chart
from .proxies import POLICIES

BASES = {"nginx": "to_nginx", "relay": "to_relay", "before": "to_before", POLICIES[0]: "to_base"}
NOTES = [
    "x nginx, x relay, x before: CPU per request relative to that proxy in the same round. +-: half the distance between the quartiles.",
    "The relay opens a connection to an origin for each client connection, so it is no floor where connections are new.",
]
POLICY_NOTES = [
    f"x {POLICIES[0]}: CPU per request relative to that policy in the same round. +-: half the distance between the quartiles.",
    "There is one client and one path, so first, hash and ip_hash send all requests to one origin.",
]


def summarise(case, runs):
    """Medians for each proxy of one case. `runs[proxy]` is a list with one entry a round."""
    return {proxy: (idle_medians if case.idle else load_medians)(proxy, runs) for proxy in runs}


def idle_medians(proxy, runs):
    return {"idle_bytes": statistics.median(run["idle_bytes"] for run in runs[proxy])}


def load_medians(proxy, runs):
    own = runs[proxy]
    medians = {
        key: statistics.median(run[key] for run in own)
        for key in ("cpu_us", "requests_per_second", "p50_us", "p99_us", "cpu_share")
        if key in own[0]
    }
    # The kernel splits time into user and system by sampling: only the sum over all rounds is exact enough.
    requests = sum(run["requests"] for run in own)
    medians["user_us"] = sum(run["user_us"] * run["requests"] for run in own) / requests
    medians["requests"] = requests
    medians["spread"] = spread([run["cpu_us"] for run in own])
    for base, key in BASES.items():
        if base in runs:
            # A ratio is of one round: what disturbs the machine for longer disturbs both sides of it.
            ratios = [run["cpu_us"] / other["cpu_us"] for run, other in zip(own, runs[base])]
            medians[key] = statistics.median(ratios)
    return medians


def spread(values):
    """Half the distance between the quartiles, relative to the median."""
    if len(values) < 4:
        return None
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def table(cases, summary):
    """All cases and proxies in one table of plain text, without the columns that would be empty."""
    policies = any(POLICIES[0] in proxies for proxies in summary.values())
    ratios = [f"x {POLICIES[0]}"] if policies else ["x nginx", "x relay", "x before"]
    head = ["case", "proxy", "CPU us/req", "+-", "user us", *ratios, "req/s", "p50 ms", "p99 ms", "B/idle conn"]
    rows = [head]
    for case in cases:
        for index, (proxy, medians) in enumerate(summary[case.name].items()):
            rows.append([case.title if index == 0 else "", proxy, *cells(medians, policies)])
    rows = filled(rows)
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for number, row in enumerate(rows):
        if number and row[0]:
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        pairs = enumerate(zip(row, widths))
        lines.append("  ".join(text.ljust(width) if column < 2 else text.rjust(width) for column, (text, width) in pairs))
    return "\n".join([*lines, "", *(POLICY_NOTES if policies else NOTES)])


def filled(rows):
    """The rows, below a head, without the columns in which only the head says something."""
    return list(zip(*(column for column in zip(*rows) if any(column[1:]))))


def cells(medians, policies):
    """One row's figures; empty where a case has none."""

    def cell(key, form):
        value = medians.get(key)
        return "" if value is None else form(value)

    return [
        cell("cpu_us", "{:.1f}".format),
        cell("spread", "{:.1%}".format),
        cell("user_us", "{:.2f}".format),
        *(cell(key, "{:.2f}".format) for key in (["to_base"] if policies else ["to_nginx", "to_relay", "to_before"])),
        cell("requests_per_second", "{:,.0f}".format),
        cell("p50_us", lambda us: f"{us / 1000:.2f}"),
        cell("p99_us", lambda us: f"{us / 1000:.2f}"),
        cell("idle_bytes", "{:,.0f}".format),
    ]


def write(directory, conditions, cases, runs, summary):
    """Writes `compare.json` and, where proxies were compared, `compare.svg`; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    whole = {"conditions": conditions, "summary": summary, "runs": runs}
    paths = [directory / "compare.json"]
    paths[0].write_text(json.dumps(whole, indent=2) + "\n")
    if not any(POLICIES[0] in proxies for proxies in summary.values()):
        paths.append(directory / "compare.svg")
        paths[1].write_text(chart.draw(cases, summary, conditions))
    return paths
