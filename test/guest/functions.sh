# Shell functions for scripts that run in the guest.

step() { echo "== [$(cut -d' ' -f1 /proc/uptime) s] $*"; }
fail() { echo "FAILED: $*"; exit 1; }

# wait_for COMMAND...: until it succeeds, ten seconds at most
wait_for() {
	n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 200 ] || return 1
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

# disk LUN: the block device of a logged-in LUN
disk() {
	for b in /sys/class/iscsi_session/session*/device/target*/*:"$1"/block/*; do
		[ -e "$b" ] && echo "/dev/${b##*/}"
	done
}

# blocks DEVICE FIRST COUNT: prints 512-byte blocks, read from the device
# itself and not from the page cache
blocks() { blockdev --flushbufs "$1" && dd if="$1" bs=512 skip="$2" count="$3" status=none; }
