# What a passing guest does before its memory is frozen, so that each guest that goes on from it has less to do. All of it is
# in /run: gone when a guest boots. POSIX sh, for Debian as for a guest of busybox; it never fails.
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
networkd=/sys/fs/cgroup/system.slice/systemd-networkd.service/cgroup.procs
files=/run/systemd/network
[ -d /run/corral ] && rm -rf /run/corral/ready

# A card is known by the place where it sits, since forks have theirs there: udev calls it as it is called now.
place_of() {
    place=$(cd -P "$1/device" && pwd)
    case ${place##*/} in virtio*) place=${place%/*} ;; esac
    place=${place##*/}
    case $place in ????:??:??.?) return 0 ;; *) return 1 ;; esac
}

# To networkd, which keeps running in forks, by that name, not by its address; and to others by its own address, not by the
# machine's id. Its host name is told by other means: asking for it starts a service.
settle_networkd() {
    mkdir -p "$files" /run/systemd/networkd.conf.d
    printf '[DHCPv4]\nDUIDType=link-layer\n[DHCPv6]\nDUIDType=link-layer\n' >/run/systemd/networkd.conf.d/corral-fork.conf
    for file in /etc/systemd/network/*.network "$files"/*.network; do
        [ -f "$file" ] || continue
        mkdir -p "$files/${file##*/}.d"
        printf '[DHCPv4]\nUseHostname=no\n' >"$files/${file##*/}.d/corral-fork.conf"
    done
    for device in /sys/class/net/*; do
        [ -e "$device/device" ] && read -r address <"$device/address" && place_of "$device" || continue
        called=${device##*/}
        printf '[Match]\nPath=pci-%s\n\n[Link]\nName=%s\n' "$place" "$called" >"$files/05-corral-$called.link"
        for file in $(grep -liF "$address" /etc/systemd/network/*.network "$files"/*.network); do
            printf '\n[Match]\nMACAddress=\nPermanentMACAddress=\nName=\nName=%s\n' "$called" >>"$files/${file##*/}.d/corral-fork.conf"
        done
    done
    systemctl restart systemd-networkd && mkdir -p /run/corral && : >/run/corral/ready
}
{
    [ -r "$networkd" ] && read -r pid <"$networkd" && settle_networkd
    sync
} </dev/null >/dev/null 2>&1
exit 0
