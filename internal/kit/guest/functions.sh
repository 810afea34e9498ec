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

# The functions below need the layer "fio".

# keep_verifying DEVICE SIZE: fio writes and verifies again and again until end_verifying, with
# the process $WORK
keep_verifying() {
	: >/tmp/rounds
	while [ ! -e /tmp/stop ]; do
		fio --name=work --filename="$1" --rw=randrw --bsrange=4k-64k --size="$2" --direct=1 --ioengine=libaio --iodepth=8 \
			--verify=crc32c --verify_fatal=1 --randrepeat=0 --minimal >/tmp/fio 2>&1 || exit 1
		echo round >>/tmp/rounds
	done &
	WORK=$!
}

# rounds N: so many more are done; the first one of them has begun before
rounds() {
	want=$(($(wc -l </tmp/rounds) + $1))
	further() { [ "$(wc -l </tmp/rounds)" -ge $want ] || ! kill -0 $WORK; }
	wait_for further || wait_for further || wait_for further
	kill -0 $WORK && [ "$(wc -l </tmp/rounds)" -ge $want ] || { cat /tmp/fio; dmesg | tail -20; fail "fio has ended or hangs"; }
}

end_verifying() {
	touch /tmp/stop
	wait $WORK || { cat /tmp/fio; fail "fio found an error"; }
	echo "fio has done $(wc -l </tmp/rounds) rounds without an error"
}

# keep_measuring DEVICE OPTION...: another fio writes 4 KiB at a time until end_measuring, and logs of
# each command when it ended, in ms since 1970, and how many ns it took
keep_measuring() {
	probed=$1
	shift
	fio --name=probe --filename="$probed" "$@" --rw=randwrite --bs=4k --direct=1 --iodepth=1 --thinktime=5000 --time_based --runtime=10m --randrepeat=0 \
		--write_lat_log=/tmp/probe --log_unix_epoch=1 --minimal >/tmp/measured 2>&1 &
	MEASURE=$!
}

# end_measuring FILE: prints the longest command over each of what the lines of a file have, with
# when it began and ended, in seconds since 1970
end_measuring() {
	kill -INT $MEASURE
	wait $MEASURE # its exit status is that of the signal
	[ "$(grep '^3;' /tmp/measured | cut -d';' -f5)" = 0 ] || { cat /tmp/measured; fail "the other fio found an error"; }
	while read -r what from to; do
		awk -F', *' -v what="$what" -v from="$from" -v to="$to" \
			'$1 >= from * 1000 && $1 < (to + 1) * 1000 && $2 > longest { longest = $2 } END { printf "longest command over %s: %d ms\n", what, longest / 1000000; exit !longest }' /tmp/probe_lat.1.log ||
			fail "nothing was measured over $what"
	done <"$1"
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
