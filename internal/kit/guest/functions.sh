# Shell functions for scripts that run in the guest.

step() { echo "== [$(cut -d' ' -f1 /proc/uptime) s] $*"; }
fail() { echo "FAILED: $*"; exit 1; }

# wait_for COMMAND...: until it succeeds, or has failed for 30 s or more
wait_for() {
	n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 600 ] || return 1
		usleep 50000
	done
}

# login PORTAL IQN LUNS: logs in by a record made by hand, because what a
# target says in discovery is its address on the host, and waits for as many
# disks
login() {
	iscsid || return 1
	iscsiadm -m node -T "$2" -p "$1" -o new || return 1
	iscsiadm -m node -T "$2" -p "$1" --login || return 1
	enough() { [ "$(ls -d /sys/class/iscsi_session/session*/device/target*/*:*/block/* | wc -l)" -ge "$1" ]; }
	wait_for enough "$3"
}

# logout IQN: of all its sessions
logout() { iscsiadm -m node -T "$1" --logout || fail "logout"; }

# disk LUN: the block device of a logged-in LUN
disk() {
	for b in /sys/class/iscsi_session/session*/device/target*/*:"$1"/block/*; do
		[ -e "$b" ] && echo "/dev/${b##*/}"
	done
}

# blocks DEVICE FIRST COUNT: prints 512-byte blocks, read from the device
# itself and not from the page cache
blocks() { blockdev --flushbufs "$1" && dd if="$1" bs=512 skip="$2" count="$3" status=none; }

# ask WORD...: asks the host, prints its answer
ask() {
	answer=$(echo "$*" | nc $DESK)
	echo "${answer#* }"
	[ "${answer%% *}" = ok ]
}

# The functions below need the layer "disks".

start_udev() {
	[ -e /run/udev/control ] && return
	mkdir -p /run/udev
	/usr/lib/systemd/systemd-udevd --daemon || return
	udevadm trigger --action=add && udevadm settle --timeout=30
}

# start_multipath SETTINGS: udev, and a multipathd with these lines in the
# section "defaults" of its configuration
start_multipath() {
	start_udev || return
	printf 'defaults {\n user_friendly_names no\n find_multipaths no\n%s\n}\n' "$1" >/etc/multipath.conf
	multipathd
	wait_for multipathd show daemon
}

# quiet_kernel: the kernel has complained of no I/O
quiet_kernel() { ! dmesg | grep -iE 'i/o error|medium error|buffer i/o|sense key|call trace|corrupt'; }
