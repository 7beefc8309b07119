"""The plan as tables: lengths, a step's tokens, memory by phase, and what to do."""

from typing import Any

from rich.table import Column, Table

from mgpo.tools.plan.launch import GB
from mgpo.tools.plan.memory import EXTRA, PHASES

Report = dict[str, Any]


def format_plan(report: Report, model: str) -> list[Table | str]:
    """Lines and tables on a plan, as the terminal shows them from top to bottom."""
    launch = report["launch"]
    head = (
        f"{model}: {_count(report['model']['parameters'])} parameters of {launch['weight']} bytes; "
        f"{launch['questions']} questions x {launch['group']} rollouts a process and step, "
        f"{_devices(launch['devices'])}"
    )
    tables = [_turns(report), _assumed(report), _tokens(report), _memory(report)]
    return [head, *tables, *_verdict(report), *_estimate(report)]


def _turns(report: Report) -> Table:
    table = Table("turn", *(_right(name) for name in ("shown", "of images", "reply")), title="tokens of a rollout")
    for number, turn in enumerate(report["turns"], start=1):
        name = f"{number}, anew" if turn["fresh"] else str(number)
        table.add_row(name, *(f"{turn[key]:,}" for key in ("shown", "image", "reply")))
    total = {key: sum(turn[key] for turn in report["turns"]) for key in ("shown", "image", "reply")}
    table.add_section()
    table.add_row("all", *(f"{count:,}" for count in total.values()))
    return table


def _assumed(report: Report) -> str:
    """What only the run itself will show."""
    pictures, needed = report["launch"]["pictures"], report["memory"]["assumed"]
    boxes = ", every box is usable" if needed["evidence"] or needed["teacher"] else ""
    answer = f", right answers have {report['launch']['answer']} tokens" if needed["evidence"] else ""
    many = f"{pictures} pictures" if pictures > 1 else "1 picture"
    return (
        f"Assumed, as no data are read: a question has {many} (--pictures), each as large as it may be{boxes}{answer}."
    )


def _tokens(report: Report) -> Table:
    assumed, limit = report["tokens"]["assumed"], report["tokens"]["at_limit"]
    table = Table("a step of one process", *_columns(report), title="tokens and patches")
    for name, count in assumed.items():
        table.add_row(name, f"{count:,}", f"{limit[name]:,}")
    return table


def _memory(report: Report) -> Table:
    """By kind what each phase needs at its highest point."""
    assumed, limit = report["memory"]["assumed"], report["memory"]["at_limit"]
    there = _there(assumed)
    table = Table("GB of a device", *(_right(phase) for phase in there), title="peak memory")
    for kind in dict.fromkeys(kind for phase in there for kind in assumed[phase]):
        sizes = [assumed[phase].get(kind, 0) for phase in there]
        if any(sizes):
            table.add_row(kind, *(_gb(size) if size else "" for size in sizes))
    table.add_section()
    for name, phases in zip(("all", "all, replies at the limit"), (assumed, limit)):
        table.add_row(name, *(_gb(sum(phases[phase].values())) for phase in there))
    table.add_row("host, a process", _gb(sum(assumed["host"].values())))
    return table


def _there(needed: Report) -> list[str]:
    """The phases that a step has."""
    return [phase for phase in PHASES if needed[phase] or phase not in EXTRA]


def _verdict(report: Report) -> list[Table | str]:
    device = report["device"]
    peak = report["memory"]["assumed"]["peak"]
    if device["usable"] is None:
        return [f"Peak: {_gb(peak)} GB. Say what a device has with --memory 80, to hear whether that fits."]
    usable, reply = device["usable"], report["launch"]["reply"]
    where = f"{device['gigabytes']:g} GB, of which {_gb(usable)} are counted on"
    if device["fits"]:
        longest = report["memory"]["at_limit"]["peak"]
        also = "so do they at the limit" if longest <= usable else f"at the limit they need {_gb(longest)} GB"
        most = f"Passes of up to --model.micro_batch_tokens {report['filled']} fit too." if report["filled"] else ""
        if report["spared"] is not None:
            share = report["spared"] or "false"
            most += f" So do faster updates, with --model.policy.init_args.gradient_checkpointing {share}."
        return [f"Fits with replies of {reply} tokens: {_gb(peak)} GB of {where}; {also}. {most}"]
    lines: list[Table | str] = [f"Does not fit: {_gb(peak)} GB is {_gb(peak - usable)} GB too much for {where}."]
    if not report["suggestions"]:
        return [
            *lines,
            "No smaller micro-batch, fewer questions, sharding, LoRA or smaller pictures would mend that.",
        ]
    table = Table(
        Column("keys", overflow="fold"),
        *(_right(name) for name in ("peak", *_there(report["memory"]["assumed"]))),
        title="what would fit, one row each",
    )
    for found in report["suggestions"]:
        keys = "\n".join(f"--{key}={value}" for key, value in found["keys"].items())
        sizes = [sum(found["memory"][phase].values()) for phase in _there(found["memory"])]
        table.add_row(keys, _gb(found["peak"]), *map(_gb, sizes))
        table.add_section()
    return [*lines, table]


def _estimate(report: Report) -> list[Table | str]:
    """Seconds of a step by phase on other numbers of devices, and on what that rests."""
    if not (found := report.get("estimate")) or not found["machines"]:
        return []
    device, machines = found["device"], found["machines"]
    table = Table(
        device["name"],
        *(_right(str(row["devices"])) for row in machines),
        title=f"estimate: a step of {found['questions']} questions, in seconds",
    )
    for phase in machines[0]["seconds"]:
        table.add_row(phase, *(f"{row['seconds'][phase]:,.1f}" for row in machines))
    table.add_section()
    table.add_row("step", *(f"{sum(row['seconds'].values()):,.1f}" for row in machines))
    table.add_row("questions each", *(str(row["questions"]) for row in machines))
    table.add_row("GB of a device", *(_gb(row["peak"]) for row in machines))
    table.add_row("fits", *("yes" if row["fits"] else "no" for row in machines))
    return [table, _rates(found["device"], found["shares"], report["launch"]["reply"])]


def _rates(device: Report, shares: Report, reply: int) -> str:
    here, engine = shares["here"], shares["engine"]
    drawn = (
        f"vLLM on an H100 {engine['products']:g} and {engine['bandwidth']:g} of them, which give its seconds"
        if engine
        else f"a drawn token at least {1000 * here['layer']:g} ms a layer and {1000 * here['adapter']:g} ms an adapter"
    )
    return (
        f"Published rates: {device['half'] / 1e12:g} TFLOP/s in bfloat16, {device['single'] / 1e12:g} in float32; "
        f"{device['memory'] / 1e12:g} TB/s. Measured on one H200: {here['products']:g} of the first in the decoder, "
        f"{here['vision']:g} in the vision tower, {here['bandwidth']:g} of the last in drawing, {drawn}. Assumed: "
        f"{shares['links']:g} of links of {device['inside'] / 1e9:g} GB/s in a node of {device['node']} and of "
        f"{device['between'] / 1e9:g} GB/s a device between nodes, which nothing hides. All replies have {reply} "
        "tokens. Left out: pictures on the CPU, drawing itself, the optimiser's step, checkpoints, "
        "evaluations and audits."
    )


def _columns(report: Report) -> tuple[Column, Column]:
    launch = report["launch"]
    return _right(f"replies of {launch['reply']:,}"), _right(f"of {launch['limit']:,} (limit)")


def _right(name: str) -> Column:
    return Column(name, justify="right")


def _devices(devices: Report) -> str:
    count = devices["count"] * devices["nodes"]
    return f"{count} device{'s' if count > 1 else ''}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} billion" if parameters >= 1e8 else f"{parameters / 1e6:.2f} million"


def _gb(size: int) -> str:
    return f"{size / GB:,.1f}" if size >= GB / 10 else f"{size / GB:.3f}"
