"""Every limit and default of the model, once. The reference page of limits is generated from here."""

from typing import Final

# virtual hardware
VCPUS_DEFAULT: Final = 1
VCPUS_MAX: Final = 288  # q35 without split irqchip tuning, as QEMU's own `max-cpus` for pc-q35-7.2
MEMORY_DEFAULT_MIB: Final = 1024
MEMORY_MIN_MIB: Final = 32
MEMORY_MAX_MIB: Final = 4 * 2**20  # 4 TiB
DISK_MIN_BYTES: Final = 2**20
DISK_MAX_BYTES: Final = 64 * 2**40
DISKS_MAX: Final = 16
DISK_SLOTS: Final = 25  # vda to vdy; the cloud-init seed is vdz
NICS_MAX: Final = 8
ROUTER_PORTS_MAX: Final = 16
ROUTER_ROUTES_MAX: Final = 64
BALANCER_TARGETS_MAX: Final = 64
CLONES_MAX: Final = 100  # of one request
PUBLICATIONS_MAX: Final = 64  # projects that one template is published to
WARM_MAX: Final = 50  # domains of one template that wait for its state
WARM_SLOT_MIB: Final = 64  # what one counts for; measured: 35 to 48 MiB, whatever the guest's memory
SNAPSHOTS_MAX: Final = 256  # of one VM
POLICY_SNAPSHOTS_MAX: Final = 48  # that a policy keeps, of one period and of all: a chain has CHAIN_LAYERS_MAX
CHAIN_LAYERS_MAX: Final = 64  # of one disk; each is an open file, and a place to look for a block
LAYER_PIECES_MAX: Final = 200_000  # of one layer, that a comparison of snapshots reads: tens of megabytes of memory
DIFF_EXTENTS_MAX: Final = 10_000  # of one disk, that such a comparison tells one by one; its sums are of all
CPU_FEATURES_MAX: Final = 64
NUMA_CELLS_MAX: Final = 8
SERIALS_MAX: Final = 4  # ISA has four serial ports
IO_THREADS_MAX: Final = 16
IO_LIMIT_MAX: Final = 2**40  # bytes or requests a second; libvirt takes 64 bits, QEMU at most 10^15
QUEUES_MAX: Final = 16
BANDWIDTH_MIN_BYTES_PER_S: Final = 1000  # tc's smallest rate that HTB still serves evenly
BANDWIDTH_MAX_BYTES_PER_S: Final = 10**12
BURST_MAX_BYTES: Final = 2**30
SHARES_MAX: Final = 8
HOST_DEVICES_MAX: Final = 8
CMDLINE_MAX_CHARS: Final = 2048  # x86's COMMAND_LINE_SIZE
# One vCPU's weight against other guests' (cgroup `cpu.shares`, libvirt's own default for a whole domain is 1024).
CPU_SHARES_PER_VCPU: Final = 1024
CPU_SHARES_MAX: Final = 262144  # the kernel's upper bound of cpu.shares

# documents
USER_DATA_MAX_BYTES: Final = 64 * 1024
NETWORK_CONFIG_MAX_BYTES: Final = 16 * 1024
SSH_KEYS_MAX: Final = 32
SSH_KEY_MAX_CHARS: Final = 8192  # a 16384-bit RSA key is about 2,800
LABELS_MAX: Final = 64
DESCRIPTION_MAX_CHARS: Final = 4096
REQUEST_BODY_MAX_BYTES: Final = 512 * 1024
MEDIUM_FILES_MAX: Final = 16  # answers for an installer; the body's own limit bounds their size
PAGE_DEFAULT: Final = 500
PAGE_MAX: Final = 1000

# captures of packets
CAPTURE_FILTER_MAX_CHARS: Final = 1024
CAPTURE_BYTES_MAX: Final = 2**30
CAPTURE_PACKETS_MAX: Final = 10_000_000
CAPTURE_DURATION_DEFAULT_S: Final = 600.0
CAPTURE_DURATION_MAX_S: Final = 3600.0
CAPTURE_SNAP_MAX_BYTES: Final = 262144  # tcpdump's own
CAPTURES_MAX: Final = 8  # at a time on one host

# changes of the host's own network
CONFIRM_MIN_S: Final = 5.0
CONFIRM_DEFAULT_S: Final = 60.0
CONFIRM_MAX_S: Final = 900.0

# stacks
STACK_VMS_MAX: Final = 128
STACK_IMAGES_MAX: Final = 32
STACK_NETWORKS_MAX: Final = 16
STACK_ROUTERS_MAX: Final = 16
STACK_FORWARDS_MAX: Final = 64
STACK_GROUPS_MAX: Final = 64
STACK_POLICIES_MAX: Final = 16
STACK_BALANCERS_MAX: Final = 32
STACK_ADDRESSES_MAX: Final = 64
STACK_VOLUMES_MAX: Final = 128
STACK_VARIABLES_MAX: Final = 256
STACK_VARIABLE_MAX_CHARS: Final = 4096
STACK_DEPTH_MAX: Final = 16  # the deepest field is hardware.memory.numa[].vcpus of a VM
STACK_TEXT_MAX_CHARS: Final = 2 * 2**20  # all texts together, once variables are replaced and VMs counted

# networks
MTU_MIN: Final = 576  # RFC 791: what every host takes
MTU_IPV6_MIN: Final = 1280  # RFC 8200, section 5
MTU_MAX: Final = 9216  # jumbo frames, as common hardware takes them
VLAN_MAX: Final = 4094
NETWORK_RESERVATIONS_MAX: Final = 32  # each claims up to three keys of a transaction's 128
DHCP_OPTIONS_MAX: Final = 32
DNS_SERVERS_MAX: Final = 8

# firewalls
NIC_GROUPS_MAX: Final = 8
RULE_MAX_CHARS: Final = 200
GROUP_RULES_MAX: Final = 256  # of one security group: its document stays far below the store's 256 KiB
PROJECT_RULES_MAX: Final = 4096  # of all groups of one project; what a packet costs does not grow with them
PROJECT_GROUPS_MAX: Final = 512
POLICY_TIERS_MAX: Final = 8  # each pair of them is looked at for every new connection
POLICY_EXCEPTIONS_MAX: Final = 128
PROJECT_POLICIES_MAX: Final = 16
FIREWALL_LOG_MAX: Final = 1000  # denied packets that are remembered

# exec and consoles
EXEC_CAPTURE_MAX_BYTES: Final = 1 * 2**20  # a stream, beyond that it is cut and the answer says so
EXEC_TIMEOUT_DEFAULT_S: Final = 60.0
EXEC_TIMEOUT_MAX_S: Final = 3600.0
EXEC_ARGS_MAX: Final = 256
EXEC_STDIN_MAX_BYTES: Final = 128 * 1024
# As JSON, with stdin in base64: libvirt 9.0 never sends more than the buffer of the agent's socket, about 210 kB here, to
# its end, and then takes the agent for dead.
EXEC_MESSAGE_MAX_BYTES: Final = 190_000
CONSOLE_LOG_MAX_BYTES: Final = 1 * 2**20

# keys, files and clocks of a running guest
KEYS_MAX: Final = 64
TYPED_TEXT_MAX_CHARS: Final = 1024
KEY_HOLD_MAX_MS: Final = 5000
GUEST_PATH_MAX_CHARS: Final = 4096  # the kernel's PATH_MAX
COPY_MAX_BYTES: Final = 1 * 2**30  # a file, or a directory's archive; larger ones go over SSH

# time
SHUTDOWN_DEADLINE_DEFAULT_S: Final = 120.0
SHUTDOWN_DEADLINE_MAX_S: Final = 3600.0
REFRESH_DEADLINE_DEFAULT_S: Final = 600.0  # for the boot of a template's guest
REFRESH_DEADLINE_MAX_S: Final = 3600.0
WAIT_TIMEOUT_DEFAULT_S: Final = 60.0
WAIT_TIMEOUT_MAX_S: Final = 3600.0
OPERATION_WAIT_MAX_S: Final = 60.0  # one long poll; the client asks again
BOOT_DELAY_MAX_S: Final = 3600.0
RESTART_BACKOFF_FIRST_S: Final = 1.0
RESTART_BACKOFF_MAX_S: Final = 300.0
PRIORITY_DEFAULT: Final = 100
PRIORITY_MAX: Final = 1000
