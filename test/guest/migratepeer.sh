# A LUN of $IQN behind $PORTAL: fio writes all of it and verifies, while the host moves it
# $MIGRATIONS times between two servers, each of which redirects to the other one then.
step "login"
login "$PORTAL" "$IQN" 1 || fail "login"
LOAD=$(disk 0)
dmesg -c >/tmp/early # the login has unit attentions
wwid=$(cat /sys/block/"${LOAD#/dev/}"/device/wwid)

dd if=/dev/urandom of="$LOAD" bs=1M seek=32 count=8 oflag=direct status=none || fail "fill"
sum=$(blocks "$LOAD" 65536 16384 | sha256sum)

# work: writes and verifies again and again until it is stopped
work() {
	while [ ! -e /tmp/stop ]; do
		fio --name=work --filename="$LOAD" --rw=randrw --bsrange=4k-64k --size=4m --direct=1 --ioengine=libaio --iodepth=8 \
			--verify=crc32c --verify_fatal=1 --randrepeat=0 --minimal >/tmp/fio 2>&1 || { cat /tmp/fio; return 1; }
		echo round >>/tmp/rounds
	done
}
count() { wc -l </tmp/rounds; }
: >/tmp/rounds
work &
WORK=$!
for move in $(seq "$MIGRATIONS"); do
	step "migration $move"
	held=$(ask "migrate $move") || fail "migration $move: $held"
	echo "commands were held for $held ms"
	want=$(($(count) + 2)) # of which one has begun at the destination
	further() { [ "$(count)" -ge $want ] || ! kill -0 $WORK; }
	wait_for further
	kill -0 $WORK && [ "$(count)" -ge $want ] || { cat /tmp/fio; dmesg | tail -20; fail "fio has ended or hangs"; }
	ask "finish $move" || fail "finish $move"
done

step "what came of it"
touch /tmp/stop
wait $WORK || fail "fio found an error"
echo "fio has done $(count) rounds without an error"
dmesg | grep -i 'I/O error' && fail "the kernel has seen an error"
[ "$wwid" = "$(cat /sys/block/"${LOAD#/dev/}"/device/wwid)" ] || fail "the disk has another name"
[ "$sum" = "$(blocks "$LOAD" 65536 16384 | sha256sum)" ] || fail "what was written before differs"
logout "$IQN"
step "done"
