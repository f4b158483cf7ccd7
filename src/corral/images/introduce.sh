# Above this line stand the values of this guest. POSIX sh, for Debian as for a guest of busybox.
# Its processor's caches are cold, and under emulation all of its code is: hardly a program is called that the shell can do without.
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
has() { command -v "$1" >/dev/null 2>&1; }
quietly() { "$@" >/dev/null 2>&1; }

# Randomness first: all forks have the template's. A kernel that has heard of its new generation has taken in its own; others
# are told to take in ours at once.
printf %s "$randomness" >/dev/urandom
[ -d /var/lib/systemd ] && printf %s "$randomness" >/var/lib/systemd/random-seed
if [ ! -e /sys/bus/acpi/devices/QEMUVGID:00 ] && has perl; then
    quietly perl -e 'open(F, ">", "/dev/urandom") and ioctl(F, 0x5207, 0)'
fi

# The clock stood still while the template lay on disk.
quietly date -u -s "@${now}" || quietly date -u -s "@${now%.*}"

# Who it is.
printf '%s\n' "$name" >/etc/hostname
printf '%s\n' "$name" >/proc/sys/kernel/hostname
[ -n "$former" ] && [ -f /etc/hosts ] && sed -i "s/\\b$former\\b/$name/g" /etc/hosts
if [ -f /etc/machine-id ]; then
    printf '%s\n' "$machine_id" >/etc/machine-id
    [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ] && printf '%s\n' "$machine_id" >/var/lib/dbus/machine-id
fi

# cloud-init has done its work for this instance: nothing is to be done again at the next boot.
cloud=/var/lib/cloud before=
[ -r "$cloud/data/instance-id" ] && read -r before <"$cloud/data/instance-id"
if [ -n "$instance_id" ] && [ -d "$cloud/instance/" ] && [ "$before" != "$instance_id" ]; then
    cp -a "$cloud/instance/" "$cloud/instances/$instance_id"
    ln -sfn "$cloud/instances/$instance_id" "$cloud/instance"
    printf '%s\n' "$instance_id" >"$cloud/data/instance-id"
    printf '%s\n' "$instance_id" >"$cloud/data/previous-instance-id"
    [ -d "$cloud/instance/sem" ] && : >"$cloud/instance/sem/bootper.corral-machine-id.instance"
fi

# The keys that sshd had, of the kinds that it had; the files keep their modes.
for kind in ed25519 ecdsa; do
    file=/etc/ssh/ssh_host_${kind}_key
    [ -f "$file" ] || continue
    eval "private=\$key_$kind public=\$pub_$kind"
    printf %s "$private" >"$file"
    printf %s "$public" >"$file.pub"
done
file=/etc/ssh/ssh_host_rsa_key
if [ -f "$file" ] && has ssh-keygen; then
    rm -f "$file" "$file.pub"
    quietly ssh-keygen -q -t rsa -N '' -C "root@$name" -f "$file"
fi

# Cards are known by their addresses.
for card in $cards; do
    old=${card%%=*} new=${card#*=}
    [ "$old" = "$new" ] && continue
    for file in $(grep -lsi "$old" /etc/systemd/network/* /run/systemd/network/* /etc/netplan/* /etc/udev/rules.d/* \
        /etc/network/interfaces /etc/network/interfaces.d/* /run/network/interfaces.d/* \
        /etc/NetworkManager/system-connections/*); do
        sed -i "s/$old/$new/gI" "$file"
    done
done
# They come in a moment.
there() {
    for file in /sys/class/net/*/address; do
        read -r address <"$file" 2>/dev/null && [ "$address" = "$1" ] && return 0
    done
    return 1
}
for card in $cards; do
    tries=0
    until there "${card#*=}" || [ "$tries" -ge 50 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
done

# Who keeps an old name or key starts again; then the template's own hooks.
if has systemctl; then
    quietly systemctl --no-block try-restart systemd-networkd NetworkManager ssh sshd systemd-hostnamed systemd-timesyncd
fi
for hook in /etc/corral/on-fork.d/*; do
    [ -x "$hook" ] && quietly "$hook" "$name"
done
exit 0
