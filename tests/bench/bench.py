"""`make bench`: measure every promise of speed and memory against the bare tools, in one run, and print the table."""

import argparse
import os
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import rows_fake
from stage import ROOT, Row

PROMISES = ROOT / "docs/reference/promises.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def groups(chosen: str) -> dict[str, Callable[[], Iterator[Row]]]:
    found: dict[str, Callable[[], Iterator[Row]]] = {}
    if chosen in ("all", "libvirt"):
        import rows_libvirt

        found["real libvirt"] = rows_libvirt.rows
    if chosen in ("all", "firewall"):
        import rows_firewall

        found["firewall"] = rows_firewall.rows
    if chosen in ("all", "fake"):
        found["fake driver"] = rows_fake.rows
    return found


def figure(value: float, unit: str) -> str:
    if not unit:
        return f"{value:.2f} x"
    return f"{value:.3f} {unit}" if value < 1 else f"{value:.1f} {unit}"


def table(rows: list[Row]) -> str:
    lines = ["| Promise | At most | Measured | Kept | How |", "|---|---|---|---|---|"]
    for row in rows:
        kept = "yes" if row.kept else "**no**"
        lines.append(
            f"| {row.promise} | {figure(row.limit, row.unit)} | {figure(row.measured, row.unit)} | {kept} | {row.how} |"
        )
    return "\n".join(lines)


def where() -> str:
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout
    version = qemu.split("version ")[-1].split()[0] if qemu else "none"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, kernel {platform.release()}, "
        f"Python {platform.python_version()}, QEMU {version}, load before {os.getloadavg()[0]:.1f}"
    )


def write(text: str) -> None:
    """Put the figures between the marks of the promises' page."""
    page = PROMISES.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PROMISES.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", choices=["all", "fake", "firewall", "libvirt"], default="all")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/reference/promises.md")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped and removed
    place, rows, broken = where(), [], []
    for name, group in groups(chosen.group).items():
        print(f"{name}:", file=sys.stderr)
        try:
            for row in group():
                rows.append(row)
                mark = "kept" if row.kept else "NOT KEPT"
                print(f"  {row.promise}: {figure(row.measured, row.unit)} ({mark})", file=sys.stderr, flush=True)
        except Exception:  # top of the loop over groups: the others are measured all the same
            traceback.print_exc()
            broken.append(name)
    text = f"Measured on {place}.\n\n{table(rows)}"
    print(text)
    if broken:
        print(f"\nnot measured to the end: {', '.join(broken)}", file=sys.stderr)
    elif chosen.write and chosen.group == "all":
        write(text)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
