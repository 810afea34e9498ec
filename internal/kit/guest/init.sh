#!/bin/busybox sh
# The first process of the guest: makes a usable system of the archive, runs
# /script, hands its exit status out and switches the machine off.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
$B mount -t tmpfs tmpfs /run
$B mkdir -p /dev/pts /dev/shm /run/lock/iscsi
$B mount -t tmpfs tmpfs /dev/shm
$B ln -s /proc/self/fd /dev/fd
exec </dev/console >/dev/console 2>&1
# Real programs come before what busybox has of the same name.
$B --install -s /usr/applets
export PATH=/usr/sbin:/usr/bin:/usr/applets HOME=/root LC_ALL=C
ln -s mke2fs /usr/sbin/mkfs.ext4
for m in /usr/modules/base/*.ko /usr/modules/[!b]*/*.ko; do
	[ -e "$m" ] || continue
	insmod "$m" || echo "init: $m not loaded"
done

ip link set lo up
n=0
until [ -e /sys/class/net/eth0 ] || [ $n -gt 100 ]; do usleep 20000; n=$((n + 1)); done
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
hostname guest

# Output goes by the virtio console, which is far quicker than a serial line.
# It is held open, since its settings end with the last close.
exec 3<>/dev/hvc0
stty raw -echo <&3
cd /root
sh /script </dev/null >&3 2>&1
status=$?
for p in /sys/class/virtio-ports/*; do
	[ "$(cat "$p/name")" = status ] && echo $status >"/dev/${p##*/}"
done
sync
poweroff -f
