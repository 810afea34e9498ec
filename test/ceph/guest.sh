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

keep_verifying "$LUN" 1m
keep_measuring "$LUN" --offset=8m --size=2m
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
end_verifying
end_measuring /tmp/moved
[ "$sum" = "$(blocks "$LUN" 24576 4096 | sha256sum)" ] || fail "what was written before differs"
quiet_kernel || fail "the kernel complains"
logout "$IQN"
step "done"
