#!/bin/bash
# machine.sh FOLDER NAME ssh|systemd PORT READABLE...
#
# Becomes a machine: process ids, mounts, host name and files of its own, over this machine's root as
# the read-only lower layer, so that python and what is installed are there at once. All that it
# writes lies in a tmpfs that only it sees: when this process ends, nothing of it is left.
#
# With port 22 the machine has a network of its own and answers at each of its addresses. A folder FOLDER/srv
# is its /srv/liftgate: a disk that outlives it.
#
# FOLDER holds ssh_host_ed25519_key and authorized_keys. READABLE paths, and what leads to them, are
# made readable for the machine's user `trainer`; folders among them that lie under /tmp, where the
# machine has its own files, are shown there too. To be run under `unshare --mount --uts --ipc --pid --fork`.
set -euo pipefail
folder=$1 name=$2 kind=$3 port=$4
shift 4

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$folder/disk"
mkdir "$folder"/disk/{upper,work,root}
root=$folder/disk/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/disk/upper,workdir=$folder/disk/work" "$root"

# The machine is new: what was ever made of ours on this one is not on it.
rm -rf "$root/var/lib/liftgate" "$root/etc/liftgate" "$root/opt/liftgate" "$root/srv/liftgate"

# What is installed may lie under somebody's home folder.
for path in "$@"; do
    while [ "$path" != / ]; do
        [ ! -e "$root$path" ] || chmod o+rX "$root$path"
        path=$(dirname "$path")
    done
done

shown=()
for path in "$@"; do
    case $path in
        /tmp/*) [ ! -d "$path" ] || shown+=("$path") ;;
    esac
done

install -m 600 "$folder/ssh_host_ed25519_key" "$root/etc/ssh/liftgate_host_key"
cat > "$root/etc/ssh/liftgate_sshd_config" <<CONFIG
ListenAddress $([ "$port" = 22 ] && echo 0.0.0.0 || echo 127.0.0.1)
Port $port
HostKey /etc/ssh/liftgate_host_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxStartups 100
Subsystem sftp internal-sftp
CONFIG
# A locked account would refuse keys, hence a password that nothing matches.
chroot "$root" useradd --create-home --shell /bin/bash --password '*' trainer 2>/dev/null
install -d -m 700 "$root/root/.ssh"
install -m 600 "$folder/authorized_keys" "$root/root/.ssh/authorized_keys"
install -d -m 755 "$root/srv/liftgate"
[ ! -d "$folder/srv" ] || mount --bind "$folder/srv" "$root/srv/liftgate"
chroot "$root" install -d -m 700 -o trainer -g trainer /home/trainer/.ssh
install -m 644 "$folder/authorized_keys" "$root/home/trainer/.ssh/authorized_keys"
chroot "$root" chown trainer:trainer /home/trainer/.ssh/authorized_keys /srv/liftgate
printf '127.0.0.1 localhost %s\n' "$name" > "$root/etc/hosts.new"
mv "$root/etc/hosts.new" "$root/etc/hosts"
rm -f "$root/etc/resolv.conf"
: > "$root/etc/resolv.conf"
: > "$root/etc/fstab"
echo "$name" > "$root/etc/hostname"

if [ "$kind" = ssh ]; then
    hostname "$name"
    cd "$root"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    for path in "${shown[@]}"; do
        mkdir -p "$root$path"
        mount --bind "$path" "$root$path"
        mount -o remount,bind,ro "$root$path"
    done
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero random urandom tty full; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mkdir -p run/sshd old_root_of_machine
    pivot_root . old_root_of_machine
    umount -l /old_root_of_machine
    exec /usr/sbin/sshd -D -e -f /etc/ssh/liftgate_sshd_config
fi

# Only what the machine needs is started, not what happens to be enabled on this one.
cat > "$root/etc/systemd/system/liftgate-sshd.service" <<UNIT
[Unit]
Description=The test machine's sshd
[Service]
RuntimeDirectory=sshd
ExecStart=/usr/sbin/sshd -D -e -f /etc/ssh/liftgate_sshd_config
UNIT
cat > "$root/etc/systemd/system/liftgate-machine.target" <<UNIT
[Unit]
Description=A test machine
Requires=basic.target dbus.service liftgate-sshd.service
After=basic.target
AllowIsolate=yes
UNIT
for unit in "$root"/lib/systemd/system/*.timer avahi-daemon.socket systemd-timesyncd.service systemd-networkd.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$(basename "$unit")"
done
rm -f "$root/etc/machine-id"
: > "$root/etc/machine-id"
# systemd inside wants the unified hierarchy, whatever this machine has, and a group of its own in it.
mount -t proc proc /proc
umount -lR /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir "/sys/fs/cgroup/liftgate-$name-$port"
echo $$ > "/sys/fs/cgroup/liftgate-$name-$port/cgroup.procs"
mount -t tmpfs tmpfs /run/systemd
cd /
exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --register=no --keep-unit --quiet --boot \
    --directory="$root" --machine="$name" --console=read-only "${shown[@]/#/--bind-ro=}" -- --unit=liftgate-machine.target
