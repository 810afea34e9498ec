# A LUN of $IQN behind $PORTAL: fio writes all of it and verifies, while the host moves it
# $MIGRATIONS times between two servers, each of which redirects to the other one then.
step "login"
login "$PORTAL" "$IQN" 1 || fail "login"
LOAD=$(disk 0)
dmesg -c >/tmp/early # the login has unit attentions
wwid=$(cat /sys/block/"${LOAD#/dev/}"/device/wwid)

dd if=/dev/urandom of="$LOAD" bs=1M seek=32 count=8 oflag=direct status=none || fail "fill"
sum=$(blocks "$LOAD" 65536 16384 | sha256sum)

keep_verifying "$LOAD" 4m
for move in $(seq "$MIGRATIONS"); do
	step "migration $move"
	held=$(ask "migrate $move") || fail "migration $move: $held"
	echo "commands were held for $held ms"
	rounds 2 # of which one has begun at the destination
	ask "finish $move" || fail "finish $move"
done

step "what came of it"
end_verifying
dmesg | grep -i 'I/O error' && fail "the kernel has seen an error"
[ "$wwid" = "$(cat /sys/block/"${LOAD#/dev/}"/device/wwid)" ] || fail "the disk has another name"
[ "$sum" = "$(blocks "$LOAD" 65536 16384 | sha256sum)" ] || fail "what was written before differs"
logout "$IQN"
step "done"
