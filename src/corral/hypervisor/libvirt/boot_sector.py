"""A boot sector that shows whether an accelerator runs guest code: long mode, paging, a long loop, then the exit port.

Real kernels need protected mode, paging and long mode within their first milliseconds, so the sector goes there before
it counts. It writes `S` and `E` lines to the debug console before and after the loop, so that the loop is timed apart
from the firmware. An accelerator that only interprets guest code (seen: a `/dev/kvm` without hardware behind it, 0.8
million turns a second) passes the firmware and never gets to the end of the loop.
"""

from typing import Final

# Ports of the two ISA devices that the probe gives the machine (`isa-debugcon`, `isa-debug-exit`).
DEBUG_PORT: Final = 0xE9
EXIT_PORT: Final = 0xF4
# isa-debug-exit ends QEMU with status (value << 1) | 1; the sector writes 0x10.
EXIT_STATUS: Final = (0x10 << 1) | 1
LOOP_TURNS: Final = 100_000_000
INSTRUCTIONS_PER_TURN: Final = 3
STARTED: Final = "S"
ENDED: Final = "E"

SECTOR_BYTES: Final = 512
# Firmware wants a disk of more than one sector.
IMAGE_BYTES: Final = 1024 * 1024
_GDT_OFFSET: Final = 0xA8

# (machine code, assembly), loaded at 0x7c00 in real mode. Page tables: PML4 0x1000, PDPT 0x2000, PD 0x3000, of which
# one entry maps the first 2 MiB onto themselves.
_CODE: Final = (
    ("fa", "cli"),
    ("31c0", "xor  %ax,%ax"),
    ("8ed8", "mov  %ax,%ds"),
    ("8ec0", "mov  %ax,%es"),
    ("8ed0", "mov  %ax,%ss"),
    ("bc007c", "mov  $0x7c00,%sp"),
    ("fc", "cld"),
    ("bf0010", "mov  $0x1000,%di"),
    ("b90018", "mov  $0x1800,%cx"),
    ("f3ab", "rep stosw                  # clear 12 KiB for the page tables"),
    ("66c70600100320 0000", "movl $0x2003,0x1000        # PML4[0] -> PDPT, present, writable"),
    ("66c70600200330 0000", "movl $0x3003,0x2000        # PDPT[0] -> PD"),
    ("66c70600308300 0000", "movl $0x0083,0x3000        # PD[0] = a 2 MiB page at 0"),
    ("660f0116c07c", "lgdtl 0x7cc0"),
    ("0f20e0", "mov  %cr4,%eax"),
    ("6683c820", "or   $0x20,%eax            # PAE"),
    ("0f22e0", "mov  %eax,%cr4"),
    ("66b800100000", "mov  $0x1000,%eax"),
    ("0f22d8", "mov  %eax,%cr3"),
    ("66b9800000c0", "mov  $0xc0000080,%ecx      # EFER"),
    ("0f32", "rdmsr"),
    ("660d00010000", "or   $0x100,%eax           # LME"),
    ("0f30", "wrmsr"),
    ("0f20c0", "mov  %cr0,%eax"),
    ("660d01000080", "or   $0x80000001,%eax      # PG and PE: into long mode"),
    ("0f22c0", "mov  %eax,%cr0"),
    ("66ea6d7c00000800", "ljmpl $8,$0x7c6d"),
    # 64-bit from here (0x7c6d)
    ("b810000000", "mov  $16,%eax"),
    ("8ed8", "mov  %eax,%ds"),
    ("8ec0", "mov  %eax,%es"),
    ("8ed0", "mov  %eax,%ss"),
    ("b053", "mov  $'S',%al"),
    ("e6e9", "out  %al,$0xe9"),
    ("b00a", "mov  $'\\n',%al"),
    ("e6e9", "out  %al,$0xe9"),
    ("b900e1f505", "mov  $100000000,%ecx"),
    ("01ca", "1: add %ecx,%edx"),
    ("ffc9", "dec  %ecx"),
    ("75fa", "jnz  1b"),
    ("b045", "mov  $'E',%al"),
    ("e6e9", "out  %al,$0xe9"),
    ("b00a", "mov  $'\\n',%al"),
    ("e6e9", "out  %al,$0xe9"),
    ("b010", "mov  $0x10,%al"),
    ("e6f4", "out  %al,$0xf4             # QEMU ends here"),
    ("f4", "2: hlt"),
    ("ebfd", "jmp  2b"),
)
# Null, 64-bit code, data; then the descriptor that lgdt reads: limit 23, base 0x7ca8.
_GDT: Final = ("0000000000000000", "ffff0000009aaf00", "ffff00000092cf00", "1700a87c0000")


def build_boot_image() -> bytes:
    """A raw disk whose first sector is the program."""
    code = b"".join(bytes.fromhex(machine_code) for machine_code, _ in _CODE)
    sector = code.ljust(_GDT_OFFSET, b"\0") + b"".join(bytes.fromhex(entry) for entry in _GDT)
    sector = sector.ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"
    return sector.ljust(IMAGE_BYTES, b"\0")
