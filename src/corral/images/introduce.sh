# Above this line stand the values of this guest. POSIX sh, for Debian as for a guest of busybox.
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
has() { command -v "$1" >/dev/null 2>&1; }
quietly() { "$@" >/dev/null 2>&1; }

# Randomness first: all forks have the template's. Where the kernel can be told to, it takes it in at once.
printf %s "$randomness" | base64 -d >/dev/urandom 2>/dev/null
if has perl; then quietly perl -e 'open(F, ">", "/dev/urandom") and ioctl(F, 0x5207, 0)'; fi
[ -d /var/lib/systemd ] && printf %s "$randomness" | base64 -d >/var/lib/systemd/random-seed 2>/dev/null

# The clock stood still while the template lay on disk.
quietly date -u -s "@${now}" || quietly date -u -s "@${now%.*}"

# Who it is.
printf '%s\n' "$name" >/etc/hostname
quietly hostname "$name" || printf %s "$name" >/proc/sys/kernel/hostname
[ -n "$former" ] && [ -f /etc/hosts ] && sed -i "s/\\b$former\\b/$name/g" /etc/hosts
if [ -f /etc/machine-id ]; then
    printf '%s\n' "$machine_id" >/etc/machine-id
    [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ] && printf '%s\n' "$machine_id" >/var/lib/dbus/machine-id
fi

# cloud-init has done its work for this instance: nothing is to be done again at the next boot.
cloud=/var/lib/cloud
if [ -n "$instance_id" ] && [ -d "$cloud/instance/" ]; then
    before=$(readlink "$cloud/instance")
    if [ "${before##*/}" != "$instance_id" ]; then
        cp -a "$cloud/instance/" "$cloud/instances/$instance_id"
        ln -sfn "$cloud/instances/$instance_id" "$cloud/instance"
        printf '%s\n' "$instance_id" >"$cloud/data/instance-id"
        printf '%s\n' "$instance_id" >"$cloud/data/previous-instance-id"
    fi
    mkdir -p "$cloud/instance/sem"
    : >"$cloud/instance/sem/bootper.corral-machine-id.instance"
fi

# The keys that sshd had, of the kinds that it had.
for kind in ed25519 ecdsa; do
    file=/etc/ssh/ssh_host_${kind}_key
    [ -f "$file" ] || continue
    eval "private=\$key_$kind public=\$pub_$kind"
    (umask 077 && printf %s "$private" >"$file.new") && mv "$file.new" "$file"
    printf %s "$public" >"$file.pub"
done

file=/etc/ssh/ssh_host_rsa_key
if [ -f "$file" ] && has ssh-keygen; then
    rm -f "$file" "$file.pub"
    quietly ssh-keygen -q -t rsa -N '' -C "root@$name" -f "$file"
fi

# Cards are known by their addresses. They come in a moment.
for card in $cards; do
    old=${card%%=*} new=${card#*=}
    [ "$old" = "$new" ] && continue
    for file in /etc/systemd/network/* /run/systemd/network/* /etc/netplan/* /etc/udev/rules.d/* \
        /etc/network/interfaces /etc/network/interfaces.d/* /run/network/interfaces.d/* \
        /etc/NetworkManager/system-connections/*; do
        [ -f "$file" ] && grep -qi "$old" "$file" && sed -i "s/$old/$new/gI" "$file"
    done
done
for card in $cards; do
    tries=0
    until grep -qi "${card#*=}" /sys/class/net/*/address 2>/dev/null || [ "$tries" -ge 50 ]; do
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
