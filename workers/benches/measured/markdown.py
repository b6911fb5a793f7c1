"""Numbers and tables of Markdown, and what a run was measured on."""

from collections import defaultdict

GB = 1e9


def table(head, rows):
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def show(value, digits=3, unit=1):
    """A number with so many digits after the point; nothing for None."""
    return "" if value is None else f"{value / unit:.{digits}f}"


def rounded(value, digits=3):
    """A number to so many digits, trailing zeros among them, without an exponent."""
    text = f"{value:#.{digits}g}"
    text = text if "e" not in text else f"{float(text):.10f}".rstrip("0")
    return text.removesuffix(".")


def seconds(value):
    """Seconds to three digits, in milliseconds below a tenth."""
    return f"{rounded(value * 1e3)} ms" if value < 0.1 else f"{rounded(value)} s"


def memory(value):
    """Bytes to three digits, in GB or MB; nothing for None."""
    if value is None:
        return ""
    return f"{rounded(value / GB)} GB" if value >= GB else f"{rounded(value / 1e6)} MB"


def device(line):
    """A device, and the threads on a CPU."""
    name = line["device"]
    return name if name != "cpu" else f"cpu, {line.get('threads', '?')} threads"


def target_table(targets):
    """Targets with their values; the column of bare loops only where a row has one."""
    beside = any(target.bare_loops for target in targets)

    def row(target):
        error = target.standard_error
        # A digit more than bounds have, so that a near miss shows.
        measured = rounded(target.value, 4) + (f" ± {error:.2g}" if error is not None else "")
        measured += f" {target.unit}" if target.unit else ""
        loops = [rounded(target.bare_loops) if target.bare_loops else ""] if beside else []
        met = {True: "yes", False: "**no**", None: ""}[target.met]
        return [target.what, measured, *loops, target.wanted, met]

    head = ["what", "measured", *(["bare loops alone"] if beside else []), "target", "met"]
    return table(head, [row(target) for target in targets])


def machines(lines):
    """The machines that lines name, each in a few words."""
    found = {}
    for line in lines:
        if not line.get("machine"):
            continue
        machine = dict(line["machine"], flags=set(line["machine"].get("flags") or []))
        # Programs look for other facts in their own ways.
        same = tuple(machine.get(key) for key in ("cpu", "cpu_family", "cpu_model", "cores"))
        found.setdefault(same, machine)["flags"] |= machine["flags"]
    for machine in found.values():
        parts = [machine.get("cpu", "")]
        if machine.get("cpu_family"):
            parts[0] += f" (family {machine['cpu_family']}, model {machine['cpu_model']})"
        parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
        parts += [", ".join(sorted(machine["flags"]))] if machine["flags"] else []
        if machine.get("memory_bytes"):
            parts += [f"{machine['memory_bytes'] / 2**30:.1f} GiB"]
        parts += [machine["gpu"]] if machine.get("gpu") else []
        yield "; ".join(parts)


def conditions(lines, date):
    """Machines, date, versions and seeds that the lines tell of."""
    versions, seeds = set(), defaultdict(set)
    for line in lines:
        versions |= {f"{name} {version}" for name, version in (line.get("versions") or {}).items()}
        if line.get("seed") is not None:
            seeds[line.get("who", "")].add(line["seed"])
    for machine in machines(lines):
        yield f"Machine: {machine}."
    yield f"Date: {date}."
    if versions:
        yield "Versions: " + ", ".join(sorted(versions)) + "."
    if seeds:
        of = (f"{who} {', '.join(map(str, sorted(values)))}" for who, values in seeds.items())
        yield "Seeds: " + "; ".join(sorted(of)) + "."
