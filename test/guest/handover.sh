# Two LUNs of $IQN behind $PORTAL: on the first one fio writes and verifies, on the second
# one another fio measures, while the host hands over $HANDOVERS times, and then kills the
# server, for which a standby takes over.
step "login"
login "$PORTAL" "$IQN" 2 || fail "login"
LOAD=$(disk 0) PROBE=$(disk 1)
dmesg -c >/tmp/early # the login has unit attentions
before=$(ask logins) || fail "logins: $before"

# What is written before is there after everything.
dd if=/dev/urandom of="$LOAD" bs=1M seek=32 count=8 oflag=direct status=none || fail "fill"
sum=$(blocks "$LOAD" 65536 16384 | sha256sum)

# work: writes and verifies again and again until it is stopped
work() {
	while [ ! -e /tmp/stop ]; do
		fio --name=work --filename="$LOAD" --rw=randrw --bsrange=4k-64k --size=2m --direct=1 --ioengine=libaio --iodepth=8 \
			--verify=crc32c --verify_fatal=1 --randrepeat=0 --minimal >/tmp/fio 2>&1 || { cat /tmp/fio; return 1; }
		echo round >>/tmp/rounds
	done
}
count() { wc -l </tmp/rounds; }
# rounds N: so many more are done. The first one of them has begun before.
rounds() {
	want=$(($(count) + $1))
	further() { [ "$(count)" -ge $want ] || ! kill -0 $WORK; }
	wait_for further
	kill -0 $WORK && [ "$(count)" -ge $want ] || { cat /tmp/fio; dmesg | tail -20; fail "fio has ended or hangs"; }
}
: >/tmp/rounds
work &
WORK=$!
# Of each command it logs when it ended, in ms since 1970, and how many ns it took.
fio --name=probe --filename="$PROBE" --rw=randwrite --bs=4k --size=4m --direct=1 --iodepth=1 --thinktime=5000 --time_based --runtime=10m --randrepeat=0 \
	--write_lat_log=/tmp/probe --log_unix_epoch=1 --minimal >/tmp/measured 2>&1 &
MEASURE=$!

# replace WORD: has the host replace the server, or do nothing, and notes the time.
replace() {
	step "$1"
	from=$(date +%s)
	ask "$1" >/dev/null || fail "$1"
	rounds 1
	echo "$1 $from $(date +%s)" >>/tmp/replaced
}
replace nothing
whole() { iscsiadm -m session -P 1 | grep -c 'iSCSI Session State: LOGGED_IN'; }
for n in $(seq "$HANDOVERS"); do replace handover; done
dmesg | grep -iE 'conn error|session recovery|power-on' && fail "the kernel has noticed a handover"
[ "$(ask logins)" = "$before" ] || fail "$(ask logins) logins after $before"
[ "$(whole)" = 1 ] || { iscsiadm -m session -P 1; fail "there is no session"; }

replace kill
rounds 1 # a whole one
[ "$(ask logins)" = $((before + 1)) ] || fail "$(ask logins) logins after $before, and a kill"
dmesg | grep 'conn error' || fail "the kernel has not noticed the kill"
[ "$(whole)" = 1 ] || { iscsiadm -m session -P 1; fail "there is no session"; }

step "what came of it"
touch /tmp/stop
wait $WORK || fail "fio found an error"
kill -INT $MEASURE
wait $MEASURE
echo "fio has done $(count) rounds without an error"
while read -r what from to; do
	awk -F', *' -v what="$what" -v from="$from" -v to="$to" \
		'$1 >= from * 1000 && $1 < (to + 1) * 1000 && $2 > longest { longest = $2 } END { printf "longest command over %s: %d ms\n", what, longest / 1000000; exit !longest }' /tmp/probe_lat.1.log ||
		fail "nothing was measured over $what"
done </tmp/replaced
[ "$sum" = "$(blocks "$LOAD" 65536 16384 | sha256sum)" ] || fail "what was written before differs"
quiet_kernel || fail "the kernel complains"
logout "$IQN"
step "done"
