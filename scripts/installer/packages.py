"""The distribution's packages: which are missing, and their installation. apt is not touched when none is."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from installer.context import Context
from installer.shell import Refused, Shell

APT = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Color=0", "-y", "--no-install-recommends"]
NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}

# Below the checkout.
UNPACKED = "var/unpacked"
# The places of a system whose /bin and /lib are those of /usr.
BEGIN_UNPACKED = """
rm -rf "$1"
mkdir -p "$1/debs/partial" "$1/etc" "$1/var" "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/usr/lib64"
cd "$1"
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
"""
UNPACK = """
cd "$1"
for deb in debs/*.deb; do
    test ! -e "$deb" || dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -f -
done
rm -rf debs
printf %s "$2" >.packages
"""


def wanted(listing: str, groups: Iterable[str]) -> list[tuple[str, ...]]:
    """The packages of some groups in packaging/apt-packages.txt, each with its alternatives."""
    chosen = set(groups)
    found = []
    for line in listing.splitlines():
        group, colon, names = line.partition("#")[0].partition(":")
        if colon and group.strip() in chosen:
            found.append(tuple(name.strip() for name in names.split("|")))
    return found


def installed(shell: Shell, names: Iterable[str]) -> set[str]:
    """Which of `names` are installed and configured."""
    result = shell.ask(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}|${Package}|${Provides}\n", *names])
    found: set[str] = set()
    for line in result.output.splitlines():
        status, _, rest = line.partition("|")
        package, _, provides = rest.partition("|")
        if status.startswith("ii"):
            found.add(package)
            found.update(re.sub(r"\(.*?\)|\s", "", provides).split(","))
    return found


def missing(shell: Shell, packages: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those of which no alternative is installed."""
    have = installed(shell, [name for names in packages for name in names])
    return [names for names in packages if not have.intersection(names)]


def choose(shell: Shell, packages: list[tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """For each the first alternative that apt can install, and those that it knows nothing of."""
    policy = shell.ask(["apt-cache", "policy", *[name for names in packages for name in names]]).output
    known = set()
    for block in re.split(r"^(?=\S+:$)", policy, flags=re.MULTILINE):
        candidate = re.search(r"^  Candidate: (\S+)$", block, re.MULTILINE)
        if candidate and candidate[1] != "(none)":
            known.add(block.partition(":\n")[0])
    chosen = [next((name for name in names if name in known), "") for names in packages]
    return [name for name in chosen if name], [
        names[0] for names, name in zip(packages, chosen, strict=True) if not name
    ]


def ensure_packages(context: Context, say: Callable[[str], None], *groups: str) -> str:
    """Install what is missing; `apt-get update` only when apt does not know a package, or cannot fetch it."""
    packages = wanted((context.root / "packaging/apt-packages.txt").read_text(), groups)
    lacking = missing(context.shell, packages)
    if not lacking:
        return f"all {len(packages)} are installed"
    if not Path("/usr/bin/apt-get").exists():
        names = " ".join(names[0] for names in lacking)
        raise Refused(
            "install packages",
            "this is not a Debian or Ubuntu system",
            f"install these yourself, then run it again: {names}",
        )
    return f"installed {', '.join(_install(context.shell, lacking, say))}"


def ensure_unpacked(context: Context, say: Callable[[str], None]) -> str:
    """What the tests run in namespaces of their own, and nobody wants installed, with all that it needs: below var/unpacked,
    as over the system's own files. What is installed is not fetched."""
    packages = wanted((context.root / "packaging/apt-packages.txt").read_text(), ["unpacked"])
    lacking = missing(context.shell, packages)
    place = context.root / UNPACKED
    stamp = place / ".packages"
    wish = "".join(f"{names[0]}\n" for names in lacking)
    if stamp.is_file() and stamp.read_text() == wish:
        return f"all {len(lacking)} are in {place}"
    shell = context.shell
    shell.must("begin", shell.as_root(["sh", "-ec", BEGIN_UNPACKED, "sh", str(place)]), say)
    if lacking:
        _install(shell, lacking, say, "--download-only", "-o", f"Dir::Cache::archives={place}/debs")
    shell.must("unpack packages", shell.as_root(["sh", "-ec", UNPACK, "sh", str(place), wish]), say)
    return f"unpacked {len(lacking)} in {place}"


def _install(shell: Shell, lacking: list[tuple[str, ...]], say: Callable[[str], None], *how: str) -> list[str]:
    shell.environment.update(NONINTERACTIVE)
    _mend(shell, say)
    chosen, unknown = choose(shell, lacking)
    updated = bool(unknown)
    if unknown:
        shell.must("read the package lists", shell.as_root([*APT, "update"]), say)
        chosen, unknown = choose(shell, lacking)
    if unknown:
        raise Refused(
            "install packages",
            f"apt knows no {', '.join(unknown)}",
            "see packaging/apt-packages.txt; is the distribution too old?",
        )
    result = shell.work(shell.as_root([*APT, *how, "install", *chosen]), say)
    if not result.ok and not updated:
        shell.must("read the package lists", shell.as_root([*APT, "update"]), say)
    if not result.ok:
        shell.must("install packages", shell.as_root([*APT, *how, "install", *chosen]), say)
    return chosen


def _mend(shell: Shell, say: Callable[[str], None]) -> None:
    """Finish what an interrupted run of dpkg left half done."""
    if shell.ask(["dpkg", "--audit"]).output.strip():
        shell.must("finish an interrupted installation", shell.as_root(["dpkg", "--configure", "-a"]), say)
