"""The chart: one group of bars a case, as an SVG that reads on light and on dark backgrounds."""

from xml.sax.saxutils import escape

COLOURS = {"ringlane": "#1f9d76", "nginx": "#5b8def", "haproxy": "#d98c2b", "relay": "#8b949e", "before": "#a371f7"}
# Grey that keeps its contrast on white and on near black; the background stays transparent.
INK = "#768390"
WIDTH, LABELS, RIGHT = 860, 210, 120
BAR, GAP, GROUP_GAP, TOP = 15, 3, 20, 74
ORDER = ("ringlane", "nginx", "haproxy", "relay", "before")


def draw(cases, summary, conditions):
    """Bars are relative to nginx in the same case (to the longest, without nginx); the figure beside each is absolute."""
    groups = [group(case, summary[case.name]) for case in cases]
    body, y = [], TOP
    for title, bars in groups:
        body.append(text(LABELS - 12, y + len(bars) * (BAR + GAP) / 2 + 3, title, anchor="end"))
        scale = (WIDTH - LABELS - RIGHT) / longest(groups)
        for proxy, share, label in bars:
            width = max(share * scale, 1)
            body.append(f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{COLOURS[proxy]}"/>')
            body.append(text(LABELS + width + 6, y + BAR - 3.5, label, size=11))
            y += BAR + GAP
        y += GROUP_GAP
    head = [
        text(16, 26, "CPU per request of one proxy core, and memory per idle connection", size=16, weight="600"),
        text(16, 44, caption(conditions), size=11),
        *legend(summary),
    ]
    return page(y, head + body)


def group(case, medians):
    """One case: its title, and for each proxy name, length relative to nginx, label."""
    key = "idle_bytes" if case.idle else "cpu_us"
    shown = [proxy for proxy in ORDER if proxy in medians]
    base = medians.get("nginx", {}).get(key) or max(medians[proxy][key] for proxy in shown)
    bars = []
    for proxy in shown:
        value = medians[proxy][key]
        figure = f"{value:,.0f} B" if case.idle else f"{value:,.1f} us"
        relative = f" ({value / base:.{0 if value > 10 * base else 2}f}x)" if "nginx" in medians and proxy != "nginx" else ""
        # A bar much longer than nginx's would flatten all others: it is cut, its label is not.
        bars.append((proxy, min(value / base, 2.2), figure + relative))
    return case.title, bars


def longest(groups):
    return max(share for _, bars in groups for _, share, _ in bars) or 1


def caption(conditions):
    names = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items() if name != "relay")
    return f"Bars: medians relative to nginx's, up to 2.2x; shorter is better. {conditions['date'][:10]}, Linux {conditions['kernel']}, {names}"


def legend(summary):
    x, parts = LABELS, []
    present = {proxy for medians in summary.values() for proxy in medians}
    for proxy in (proxy for proxy in ORDER if proxy in present):
        name = "relay (bytes only, the floor)" if proxy == "relay" else proxy
        parts.append(f'<rect x="{x}" y="54" width="10" height="10" rx="2" fill="{COLOURS[proxy]}"/>')
        parts.append(text(x + 15, 63, name, size=11))
        x += 40 + 6.5 * len(name)
    return parts


def text(x, y, words, size=12, anchor="start", weight="400"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def page(height, parts):
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" fill="{INK}" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
            "<title>Ringlane compared with nginx, HAProxy and a byte relay</title>",
            *parts,
            "</svg>",
            "",
        ]
    )
