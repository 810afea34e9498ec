# Discovery at $PORTAL, the director of a node, and a session with $IQN, a target of a shard: fio
# writes and verifies while the host has the shard moved between nodes, in ways of $MOVES.
step "discovery and login"
iscsid || fail "iscsid"
iscsiadm -m discovery -t sendtargets -p "$PORTAL" | tee /tmp/discovered || fail "discovery"
grep -q "^$PORTAL,.* $IQN\$" /tmp/discovered || fail "$PORTAL is not discovered for $IQN"
iscsiadm -m node -T "$IQN" -p "$PORTAL" --login || fail "login"
there() { [ -e "$(disk 0)" ]; }
wait_for there || fail "there is no disk"
LUN=$(disk 0)
dmesg -c >/tmp/early # the login has unit attentions

# current: the portal of the session, which is that of the shard. whole: there is one session.
current() { iscsiadm -m session -P 1 | sed -n 's/.*Current Portal: *\(.*\),.*/\1/p'; }
whole() { [ "$(iscsiadm -m session -P 1 | grep -c 'iSCSI Session State: LOGGED_IN')" = 1 ]; }
at=$(ask at) && [ "$(current)" = "$at" ] || fail "the session is at $(current), the shard at $at"

# What is written before is there after everything.
dd if=/dev/urandom of="$LUN" bs=1M seek=12 count=2 oflag=direct status=none || fail "fill"
sum=$(blocks "$LUN" 24576 4096 | sha256sum)

# work: writes and verifies again and again until it is stopped
work() {
	while [ ! -e /tmp/stop ]; do
		fio --name=work --filename="$LUN" --rw=randrw --bsrange=4k-64k --size=1m --direct=1 --ioengine=libaio --iodepth=8 \
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
fio --name=probe --filename="$LUN" --offset=8m --size=2m --rw=randwrite --bs=4k --direct=1 --iodepth=1 --thinktime=5000 --time_based --runtime=10m \
	--randrepeat=0 --write_lat_log=/tmp/probe --log_unix_epoch=1 --minimal >/tmp/measured 2>&1 &
MEASURE=$!
rounds 1

for how in $MOVES; do
	step "$how"
	from=$(date +%s)
	was=$(current)
	at=$(ask "$how") || fail "$how: $at"
	rounds 2 # a whole one
	arrived() { [ "$(current)" = "$at" ]; }
	wait_for arrived && [ "$at" != "$was" ] || fail "the session is at $(current), was at $was, and the shard is at $at"
	whole || { iscsiadm -m session -P 1; fail "there is no session"; }
	echo "$how $from $(date +%s)" >>/tmp/moved
done

step "what came of it"
touch /tmp/stop
wait $WORK || fail "fio found an error"
kill -INT $MEASURE
wait $MEASURE # its exit status is that of the signal
[ "$(grep '^3;' /tmp/measured | cut -d';' -f5)" = 0 ] || { cat /tmp/measured; fail "the other fio found an error"; }
echo "fio has done $(count) rounds without an error"
while read -r what from to; do
	awk -F', *' -v what="$what" -v from="$from" -v to="$to" \
		'$1 >= from * 1000 && $1 < (to + 1) * 1000 && $2 > longest { longest = $2 } END { printf "longest command over %s: %d ms\n", what, longest / 1000000; exit !longest }' /tmp/probe_lat.1.log ||
		fail "nothing was measured over $what"
done </tmp/moved
[ "$sum" = "$(blocks "$LUN" 24576 4096 | sha256sum)" ] || fail "what was written before differs"
quiet_kernel || fail "the kernel complains"
logout "$IQN"
step "done"
