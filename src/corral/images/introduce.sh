# Above this line stand the values of this guest. POSIX sh, for Debian as for a guest of busybox.
# Its processor's caches are cold, and under emulation all of its code is: hardly a program is called that the shell can do without.
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
has() { command -v "$1" >/dev/null 2>&1; }
quietly() { "$@" >/dev/null 2>&1; }
newline='
'
# Write a file anew with each $2 in it turned into $3, if there is one.
swap() {
    content='' found=''
    while IFS= read -r line || [ -n "$line" ]; do
        while :; do
            case $line in
            *"$2"*) found=yes content=$content${line%%"$2"*}$3 line=${line#*"$2"} ;;
            *) break ;;
            esac
        done
        content=$content$line$newline
    done <"$1"
    [ -z "$found" ] || printf %s "$content" >"$1"
}

# Told once: where the agent's answer came too late, this is run again, beside the first.
told=/run/corral-told-$machine_id
set -C
if [ -d /run ] && ! command : >"$told" && [ -e "$told" ]; then
    until read -r word <"$told"; do sleep 1; done
    exit 0
fi 2>/dev/null
set +C

# Randomness first: all forks have the template's. A kernel that has heard of its new generation has taken in its own; others
# are told to take in ours at once.
printf %s "$randomness" >/dev/urandom
if [ ! -e /sys/bus/acpi/devices/QEMUVGID:00 ] && has perl; then
    quietly perl -e 'open(F, ">", "/dev/urandom") and ioctl(F, 0x5207, 0)'
fi

# The clock stood still while the template lay on disk.
quietly date -u -s "@${now}" || quietly date -u -s "@${now%.*}"

# Who it is. In /etc/hosts its name stands as a word, or before its domain.
introduce_hosts() {
    content=''
    set -f
    while IFS= read -r line || [ -n "$line" ]; do
        case " $line " in
        *[[:space:]]"$former"[[:space:].]*)
            words=''
            for word in $line; do
                case $word in
                "$former") word=$name ;;
                "$former".*) word=$name.${word#*.} ;;
                esac
                words=$words${words:+ }$word
            done
            line=$words
            ;;
        esac
        content=$content$line$newline
    done </etc/hosts
    set +f
    printf %s "$content" >/etc/hosts
}
printf '%s\n' "$name" >/etc/hostname
printf '%s\n' "$name" >/proc/sys/kernel/hostname
[ -n "$former" ] && [ -f /etc/hosts ] && introduce_hosts
if [ -f /etc/machine-id ]; then
    printf '%s\n' "$machine_id" >/etc/machine-id
    [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ] && printf '%s\n' "$machine_id" >/var/lib/dbus/machine-id
fi

# The keys that sshd had, of the kinds that it had; the files keep their modes.
for kind in ed25519 ecdsa; do
    file=/etc/ssh/ssh_host_${kind}_key
    [ -f "$file" ] || continue
    eval "private=\$key_$kind public=\$pub_$kind"
    printf %s "$private" >"$file"
    printf %s "$public" >"$file.pub"
done
rsa=/etc/ssh/ssh_host_rsa_key
if [ -f "$rsa" ] && has ssh-keygen; then
    : >"$rsa"
    : >"$rsa.pub" # it takes its time, so it is made last; sshd does without
else
    rsa=
fi

# Cards are known by their addresses. Where the guest calls one by a name of Corral's, the new one in its place gets it too.
pinned=' '
for card in $cards; do
    old=${card%%=*} new=${card#*=} called=${card##*=}
    new=${new%%=*}
    [ "$old" = "$new" ] && continue
    for file in /etc/systemd/network/* /run/systemd/network/* /etc/netplan/* /etc/udev/rules.d/* \
        /etc/network/interfaces /etc/network/interfaces.d/* /run/network/interfaces.d/* \
        /etc/NetworkManager/system-connections/*; do
        [ -f "$file" ] || continue
        swap "$file" "$old" "$new"
        case $content$newline in
        *"$new"*"Name=$called$newline"* | *"Name=$called$newline"*"$new"* | *"set-name: $called$newline"*)
            pinned="$pinned$new=$called "
            ;;
        esac
    done
done
# What prepare.sh has settled: udev calls a card by its place, and networkd knows it by that name.
ready=''
[ -e /run/corral/ready ] && ready=yes
# They come in a moment.
there() {
    for file in /sys/class/net/*/address; do
        read -r address <"$file" 2>/dev/null && [ "$address" = "$1" ] && device=${file%/address} && return 0
    done
    return 1
}
for card in $cards; do
    [ -z "$ready" ] || break
    tries=0 device='' new=${card#*=} called=${card##*=}
    new=${new%%=*}
    until there "$new" || [ "$tries" -ge 50 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    device=${device##*/}
    case $pinned in
    *" $new=$called "*)
        if [ -n "$device" ] && [ "$device" != "$called" ]; then
            quietly ip link set dev "$device" down
            quietly ip link set dev "$device" name "$called"
        fi
        ;;
    esac
done

# Who keeps an old name or key starts again. By signals of this shell's own: to ask systemd takes longer than all of the above.
signal() {
    [ -r "$2" ] && read -r pid <"$2" && read -r called <"/proc/$pid/comm" && [ "$called" = "$3" ] && kill "-$1" "$pid"
} 2>/dev/null
networkd=/sys/fs/cgroup/system.slice/systemd-networkd.service/cgroup.procs
others=NetworkManager
signal HUP /run/sshd.pid sshd || others="$others ssh sshd"
# It knows its machine by the id that it read when it began. Its unit is started again where it is killed.
[ -n "$ready" ] || signal KILL "$networkd" systemd-network || others="$others systemd-networkd"
if has systemctl && [ "$others" != NetworkManager -o -d /run/NetworkManager ]; then
    quietly systemctl --no-block try-restart $others
fi
for hook in /etc/corral/on-fork.d/*; do
    [ -x "$hook" ] && quietly "$hook" "$name"
done
[ -d /run ] && echo told >"$told"
# What nobody waits for. cloud-init has done its work for this instance: nothing is to be done again at the next boot.
(
    cloud=/var/lib/cloud before=
    [ -r "$cloud/data/instance-id" ] && read -r before <"$cloud/data/instance-id"
    if [ -n "$instance_id" ] && [ -d "$cloud/instances/$before/" ] && [ "$before" != "$instance_id" ]; then
        mv "$cloud/instances/$before" "$cloud/instances/$instance_id"
        ln -sfn "$cloud/instances/$instance_id" "$cloud/instance"
        printf '%s\n' "$instance_id" >"$cloud/data/instance-id"
        printf '%s\n' "$instance_id" >"$cloud/data/previous-instance-id"
        [ -d "$cloud/instance/sem" ] && : >"$cloud/instance/sem/bootper.corral-machine-id.instance"
    fi
    [ -d /var/lib/systemd ] && printf %s "$randomness" >/var/lib/systemd/random-seed
    if [ -z "$ready" ] && [ "${others%systemd-networkd}" = "$others" ]; then
        sleep 10
        read -r pid <"$networkd" || systemctl --no-block start systemd-networkd
    fi
    if [ -n "$rsa" ]; then
        sleep 15 # the guest's processor has enough to do
        rm -f "$rsa" "$rsa.pub"
        ssh-keygen -q -t rsa -N '' -C "root@$name" -f "$rsa"
        signal HUP /run/sshd.pid sshd
    fi
) </dev/null >/dev/null 2>&1 &
exit 0
