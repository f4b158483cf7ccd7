"""The table of commands: name, where it lives, one line of help. `--help` is printed from here and imports nothing."""

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """A top-level command: `target` is `module:attribute` below corral.cli, imported when it is called."""

    section: str
    target: str
    help: str


_VM: Final = "Virtual machines"
_MANY: Final = "Many at once"
_GUEST: Final = "Inside the guest"
_OTHER: Final = "Everything else (NOUN VERB)"
_DAEMON: Final = "The daemon"

COMMANDS: Final[dict[str, Entry]] = {
    "create": Entry(_VM, "create:create", "Make a VM and start it."),
    "install": Entry(_VM, "install:install", "Make a VM as virt-install does, and install a system on it."),
    "clone": Entry(_VM, "clone:clone", "Make other VMs from what one is, running or not."),
    "fork": Entry(_VM, "fork:fork", "Make VMs of a template; of a hot one they go on from its memory."),
    "list": Entry(_VM, "vm:list_", "List VMs; --all also those that are off and unmanaged domains."),
    "info": Entry(_VM, "vm:info", "Show everything about a VM."),
    "start": Entry(_VM, "power:start", "Start VMs; saved ones resume where they were."),
    "shutdown": Entry(_VM, "power:shutdown", "Ask guests to power off; never escalates by itself."),
    "reboot": Entry(_VM, "power:reboot", "Ask guests to reboot."),
    "reset": Entry(_VM, "power:reset", "Press the reset button."),
    "pause": Entry(_VM, "power:pause", "Freeze VMs; their memory stays."),
    "resume": Entry(_VM, "power:resume", "Let paused VMs run again."),
    "save": Entry(_VM, "power:save", "Hibernate: memory to disk, VM off; start resumes."),
    "destroy": Entry(_VM, "power:destroy", "Stop VMs at once, like pulling the plug. Nothing is deleted."),
    "delete": Entry(_VM, "power:delete", "Delete VMs and their disks."),
    "rename": Entry(_VM, "change:rename", "Give a VM another name."),
    "describe": Entry(_VM, "change:describe", "Show or set a VM's description."),
    "tag": Entry(_VM, "change:tag", "Show, set or remove labels of a VM."),
    "set": Entry(_VM, "knobs:set_", "Change a VM's machine: memory, vCPUs, CPU model, watchdog …"),
    "edit": Entry(_VM, "edit:edit", "Edit a VM's spec as YAML."),
    "disk": Entry(_VM, "disk:disk", "Disks and drives: list, add, remove, resize, set, insert, eject."),
    "nic": Entry(_VM, "nic:nic", "Network cards: list, add, remove, link, set."),
    "protect": Entry(_VM, "change:protect", "Refuse deletion of VMs."),
    "unprotect": Entry(_VM, "change:unprotect", "Allow deletion again."),
    "autostart": Entry(_VM, "change:autostart", "Start VMs with the host, in which order."),
    "wait": Entry(_VM, "wait:wait", "Wait until a VM runs, has an address, answers SSH …"),
    "top": Entry(_VM, "top:top", "CPU, memory, disk and network use, refreshed."),
    "document": Entry(_VM, "vm:document", "Print a VM's libvirt XML."),
    "adopt": Entry(_VM, "domain:adopt", "Take over a domain that Corral did not make, without restarting it."),
    "apply": Entry(_MANY, "apply:apply", "Make what a stack's document says: VMs, disks, cards, images."),
    "diff": Entry(_MANY, "apply:diff", "Show what apply would change."),
    "down": Entry(_MANY, "apply:down", "Delete the VMs of a stack."),
    "export-spec": Entry(_MANY, "apply:export_spec", "Print VMs as a stack's document."),
    "stack": Entry(_MANY, "stack:stack", "Stacks: list, show, schema."),
    "console": Entry(_GUEST, "console:console", "Open the serial console (Ctrl-] leaves), or print its log."),
    "ssh": Entry(_GUEST, "ssh:ssh", "Log in by SSH, or run a command."),
    "exec": Entry(_GUEST, "exec:exec_", "Run a command through the guest agent."),
    "guest": Entry(_GUEST, "guest:guest", "What the guest agent tells: system, users, file systems, time."),
    "cp": Entry(_GUEST, "cp:cp", "Copy files into and out of a guest, through its agent."),
    "screenshot": Entry(_GUEST, "screenshot:screenshot", "Save what the screen shows, as PNG."),
    "vnc": Entry(_GUEST, "vnc:vnc", "Show the screen in a viewer, through the daemon."),
    "send-key": Entry(_GUEST, "guest:send_key", "Press keys: ctrl-alt-del, KEY_F2 …, or type a text."),
    "clock": Entry(_GUEST, "guest:clock", "The guest's clock: show, sync."),
    "password": Entry(_GUEST, "guest:password", "Set a user's password in the guest."),
    "nmi": Entry(_GUEST, "guest:nmi", "Inject a non-maskable interrupt."),
    "capture": Entry(_GUEST, "capture:capture", "Capture packets of a card, as a file or into a pipe."),
    "drift": Entry(_OTHER, "drift:drift", "What other tools changed of a VM: show, accept, reset."),
    "operation": Entry(_OTHER, "operation:operation", "Changes under way: list, show, cancel, watch."),
    "events": Entry(_OTHER, "event:events", "What happened; --follow goes on."),
    "image": Entry(_OTHER, "image:image", "Images: list, build, import, show, delete, catalogue."),
    "os": Entry(_OTHER, "os:os_", "Operating systems: list, show."),
    "network": Entry(_OTHER, "network:network", "Networks: make, change, list, delete."),
    "router": Entry(_OTHER, "router:router", "Routers between networks: list, show, create, set, delete."),
    "forward": Entry(_OTHER, "forward:forward", "Ports of the host's that lead to VMs: list, add, remove."),
    "address": Entry(_OTHER, "address:address", "Floating addresses: list, create, assign, unassign, delete."),
    "balancer": Entry(_OTHER, "balancer:balancer", "Load balancers in routers: list, show, create, set, delete."),
    "security-group": Entry(
        _OTHER, "security_group:security_group", "Who may reach VMs: groups of rules, on their cards."
    ),
    "firewall": Entry(_OTHER, "firewall:firewall", "Would a connection pass, and why; counters, denied packets."),
    "network-policy": Entry(_OTHER, "network_policy:network_policy", "Tiers that do not speak to each other."),
    "snapshot": Entry(_OTHER, "snapshot:snapshot", "Points in time of a VM: create, list, show, revert, delete."),
    "template": Entry(_OTHER, "template:template", "VMs frozen at one instant: list, show, create, delete."),
    "volume": Entry(_OTHER, "volume:volume", "Volumes: create, attach, resize, copy, upload, download, delete."),
    "pool": Entry(_OTHER, "pool:pool", "Pools that volumes lie in: list, show, create, delete."),
    "host": Entry(_OTHER, "host:host", "This server: info, list."),
    "audit": Entry(_OTHER, "audit:audit", "The audit log: list, verify."),
    "doctor": Entry(_DAEMON, "doctor:doctor", "Check the host and say what to do."),
    "daemon": Entry(_DAEMON, "daemon:daemon", "The daemon: start, stop, restart, status, logs."),
    "serve": Entry(_DAEMON, "serve:serve", "Be the daemon, in the foreground."),
    "admin": Entry(_DAEMON, "admin:admin", "API tokens; backup and restore of the database."),
    "recover": Entry(_DAEMON, "admin:recover", "Rebuild a lost database from what lies on the host."),
    "completion": Entry(_DAEMON, "completion:completion", "Print the completion script of bash, zsh or fish."),
}


def sections() -> dict[str, list[str]]:
    """The commands' names by section, in the table's order."""
    found: dict[str, list[str]] = {}
    for name, entry in COMMANDS.items():
        found.setdefault(entry.section, []).append(name)
    return found
