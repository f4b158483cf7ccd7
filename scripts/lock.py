"""`make lock`: resolve the dependencies into hash-pinned requirements files that name no registry."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = [str(ROOT / ".venv/bin/uv"), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-annotate",
      "--no-header", "--python-version", "3.11"]  # fmt: skip
# dev holds the very versions of runtime, so that tests see what users run.
LOCKS = {
    "build": ["requirements/build.in"],
    "runtime": ["pyproject.toml"],
    "dev": ["pyproject.toml", "--group", "dev", "-c", "requirements/runtime.txt", "-c", "requirements/build.txt"],
}


def main() -> int:
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    for name, sources in LOCKS.items():
        target = f"requirements/{name}.txt"
        done = subprocess.run([*UV, *upgrade, *sources, "-o", target], cwd=ROOT, check=False)
        if done.returncode:
            print(f"error: {target} could not be resolved", file=sys.stderr)
            return done.returncode
        text = (ROOT / target).read_text()
        if "://" in text or "--index-url" in text or "--find-links" in text:
            print(f"error: {target} names a place to download from", file=sys.stderr)
            return 1
        print(f"{target}: {text.count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
