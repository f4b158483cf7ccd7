"""`make docs`: write the generated pages of docs/reference from the code; `--check` only says which are out of date."""

import ast
import importlib
import io
import json
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corral.api import metrics
from corral.api.app import openapi_document
from corral.errors import CATALOGUE, EXIT_STATUS, HTTP_STATUS
from corral.hypervisor.capabilities import MATRIX
from corral.model import limits
from corral.model.power import TABLE, Stopped, Then
from corral.model.stack import stack_schema
from corral.names import format_bytes
from corral.settings import CONFIG_PATH, Settings
from corral.store import base

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/corral"
REFERENCE = ROOT / "docs/reference"
NOTE = "Generated from the code by `make docs`; edit the code instead.\n"


def comments(source: str) -> dict[int, str]:
    """Line number to the comment on that line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ").strip() for token in tokens if token.type == tokenize.COMMENT}


def assignments(path: Path, within: str = "") -> Iterator[tuple[str, int, int, str]]:
    """Annotated names of a module (or of a class in it): name, first line, last line, the comment at or above it."""
    source = path.read_text()
    said = comments(source)
    body = ast.parse(source).body
    if within:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == within)
    for node in body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        last = node.end_lineno or node.lineno
        words = [said[line] for line in (node.lineno, last) if line in said][:1]
        lines: list[str] = []
        above = node.lineno - 1
        while above in said and source.splitlines()[above - 1].lstrip().startswith("#"):
            lines.insert(0, said[above])
            above -= 1
        if path.name != "limits.py":  # there a comment above is the heading of a group
            words = [" ".join(lines), *words]
        yield node.target.id, node.lineno, last, ". ".join(word.rstrip(".") for word in words if word)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    rows = []
    for name, _, _, words in assignments(SOURCE / "settings.py", "Settings"):
        default = getattr(Settings, name)
        shown = "" if default in (None, "") else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        rows.append([f"`{name}`", f"`CORRAL_{name.upper()}`", shown, words.replace("|", "or")])
    return (
        "# Settings\n\n" + NOTE + "\nA flag of `corral serve` and `corral daemon start` goes over the environment, the environment over the file "
        f"`{CONFIG_PATH}` (TOML, one key a setting; `CORRAL_CONFIG` names another), the file over the default. An unknown key is an error. "
        "A daemon with a state directory of its own and no socket named listens in `STATE_DIR/run/corral.sock`. For an ordinary user "
        "the defaults are `~/.local/state/corral`, `$XDG_RUNTIME_DIR/corral/corral.sock` and `qemu:///session`.\n\n"
        + table(["Setting", "Environment", "Default", "Meaning"], rows)
    )  # fmt: skip


def errors_page() -> str:
    rows = [
        [f"`{code}`", kind.value, str(HTTP_STATUS[kind]), str(EXIT_STATUS[kind])]
        for code, kind in sorted(CATALOGUE.items())
    ]
    meanings = {
        0: "done", 1: "failed", 2: "usage, or input that was refused", 3: "not found",
        4: "conflict: taken, protected, wrong state, not enough room", 5: "not permitted", 6: "the daemon cannot be reached",
    }  # fmt: skip
    return (
        "# Errors and exit codes\n\n" + NOTE + "\nEvery error has a code, what was asked, the reason, and mostly a hint. Over HTTP it is a problem document "
        "(`application/problem+json`, RFC 9457) with the fields `type`, `title`, `status`, `code`, `asked`, `reason`, `hint`, `context` and "
        "`request_id`; an operation that failed carries the same in `status.error`.\n\n## Exit codes of the command line\n\n"
        + table(["Exit", "Meaning"], [[str(code), text] for code, text in meanings.items()])
        + "\n## Codes\n\n" + table(["Code", "Kind", "HTTP", "Exit"], rows)
    )  # fmt: skip


def limits_page() -> str:
    rows = []
    for path, module in ((SOURCE / "model/limits.py", limits), (SOURCE / "store/base.py", base)):
        for name, _, _, words in assignments(path):
            if not name.isupper() or name == "NO_KEY":
                continue
            value = getattr(module, name)
            shown = (
                format_bytes(value)
                if name.endswith("BYTES")
                else f"{value:g}"
                if isinstance(value, float)
                else str(value)
            )
            rows.append([f"`{name}`", shown, words])
    return "# Limits and defaults\n\n" + NOTE + "\n" + table(["Name", "Value", "Why"], rows)


def metrics_page() -> str:
    makers = {"Histogram": "histogram", "gauge": "gauge", "counter": "counter"}
    sources = ("api/metrics.py", "api/metrics_points.py", "api/metrics_networks.py")
    nodes = [node for name in sources for node in ast.walk(ast.parse((SOURCE / name).read_text()))]
    rows = []
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in makers:
            continue
        first, second, labels = node.args[0], node.args[1], ast.unparse(node.args[2])
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and isinstance(second, ast.Constant):
            suffix = "_total" if node.func.id == "counter" else ""
            names = labels.replace("*", "").replace("_VM", "'project', 'name', 'uid'")
            names = names.replace("_TEMPLATE", "'project', 'template', 'uid'")
            names = names.replace("_NIC", "'project', 'vm', 'nic', 'network'")
            names = names.replace("_NETWORK", "'project', 'network', 'uid'")
            rows.append(
                [
                    f"`{first.value}{suffix}`",
                    makers[node.func.id],
                    names.strip("()").replace("'", "").rstrip(","),
                    str(second.value),
                ]
            )
    rows += [
        [f"`corral_host_{field.replace('_mib', '_bytes')}`", "gauge", "host, uid", text]
        for field, _, text in metrics._HOST_FIELDS
    ]
    rows += [[f"`corral_pool_{field}`", "gauge", "pool", text] for field, text in metrics._POOL_FIELDS]
    return (
        "# Metrics\n\n" + NOTE + "\n`GET /metrics` answers in Prometheus' text format, measured when it is asked.\n\n"
        + table(["Metric", "Type", "Labels", "Meaning"], sorted(rows))
    )  # fmt: skip


def api_page() -> str:
    document: dict[str, Any] = openapi_document()
    rows = []
    for path, verbs in sorted(document["paths"].items()):
        for verb, operation in verbs.items():
            query = [f"`{one['name']}`" for one in operation.get("parameters", ()) if one["in"] == "query"]
            answers = ", ".join(status for status in sorted(operation["responses"]) if status.startswith("2"))
            rows.append([verb.upper(), f"`{path}`", operation.get("summary", ""), ", ".join(query), answers])
    return (
        "# HTTP API\n\n" + NOTE + "\nThe full description, with every field and examples, is the daemon's own OpenAPI document: `GET /v1/openapi.json`. "
        "On the Unix socket callers are known by their uid and groups; over TLS by `Authorization: Bearer TOKEN`.\n\n"
        "Lists answer `{\"items\": […], \"revision\": N, \"continue\": UID or null}`. Documents carry `revision` and an `ETag`; changes take `If-Match` "
        "and `Idempotency-Key` and answer `202` with `{\"operation\": …}`. Consoles are WebSockets: `GET /v1/vms/{name}/console`.\n\n"
        + table(["Method", "Path", "What", "Query", "Answers"], rows)
    )  # fmt: skip


def run_policy_page() -> str:
    thens = {Then.STAY_OFF: "stays off", Then.RESTART: "started again", Then.BOOT: "started in boot order"}
    causes = {
        Stopped.BY_GUEST: "the guest powered itself off", Stopped.BY_VIRSH: "`virsh destroy`",
        Stopped.QEMU_KILLED: "QEMU was killed, the guest crashed", Stopped.HOST_REBOOTED: "the host rebooted",
        Stopped.GONE: "its domain is gone altogether (`virsh undefine`, or libvirt lost it); it is made again",
        Stopped.UNKNOWN: "unknown (libvirtd was restarted since)",
    }  # fmt: skip
    head = ["What happened", *(f"`{policy}`{', autostart' if autostart else ''}" for policy, autostart in TABLE)]
    rows = [[text, *(thens[then[cause]] for then in TABLE.values())] for cause, text in causes.items()]
    return (
        "# What happens to a VM that stopped by itself\n\n" + NOTE + "\nFor a VM that should run (`power` is `on`) and stopped without Corral's doing, by its "
        "`run_policy` (`on-failure` unless you say otherwise) and `autostart`. A VM that stays off has `power` set to `off`, recorded as the "
        "guest's or virsh's doing.\n\n" + table(head, rows)
    )  # fmt: skip


def capabilities_page() -> str:
    used = {ability for pair in MATRIX for ability in pair}
    rows = [
        [f"{first}", f"{second}", why]
        for first, second, why in sorted((*sorted(pair), why) for pair, why in MATRIX.items())
    ]
    return (
        "# What does not go together\n\n" + NOTE + "\nEverything else does. What is asked for in spite of it is refused before anything is done, with the "
        "reason; `corral host info` and `GET /v1/host/incapabilities` tell it for a host, with what its accelerators were measured to be "
        f"unable to do. {len(used)} abilities are in the table.\n\n" + table(["This", "with this", "Why not"], rows)
    )  # fmt: skip


def stack_schema_page() -> str:
    return json.dumps(stack_schema(), indent=2, ensure_ascii=False) + "\n"


def cli_page() -> str:
    sys.path.insert(0, str(ROOT / "scripts"))
    text: str = importlib.import_module("generate_cli_reference").page()
    return text


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "limits.md": limits_page,
    "metrics.md": metrics_page,
    "api.md": api_page,
    "run-policy.md": run_policy_page,
    "capabilities.md": capabilities_page,
    "cli.md": cli_page,
    "stack.schema.json": stack_schema_page,
}


def main() -> int:
    stale = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(text)
    if "--check" in sys.argv[1:] and stale:
        print(f"out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    print(
        f"docs/reference: {', '.join(stale) or 'nothing'} {'is out of date' if '--check' in sys.argv[1:] else 'changed'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
