# LUN 0 of $IQN behind $PORTAL, on which fio writes and verifies, while the host has LUN 7 of the
# same target come and go $ROUNDS times, with another secret and another level of its log each
# time. The first secret is $SECRET.
iscsid || fail "iscsid"
record() { iscsiadm -m node -T "$IQN" -p "$PORTAL" "$@"; }
setting() { record -o update -n "node.session.$1" -v "$2" >/dev/null || fail "setting $1"; }
step "login"
record -o new >/dev/null || fail "the node record"
setting initial_login_retry_max 1
setting auth.authmethod CHAP
setting auth.username host
setting auth.password "$SECRET"
record --login || fail "login"
first() { [ -n "$(disk 0)" ]; }
wait_for first || fail "LUN 0 is not there"
LOAD=$(disk 0)
dmesg -c >/tmp/early # the login has unit attentions
before=$(ask logins) || fail "logins: $before"

keep_verifying "$LOAD" 8m

came() { [ -n "$(disk 7)" ]; }
rescan() { iscsiadm -m session --rescan >/dev/null || fail "rescan"; }
for round in $(seq "$ROUNDS"); do
	ask come >/dev/null || fail "LUN 7 does not come, round $round"
	rescan
	wait_for came || fail "LUN 7 is not found by a rescan, round $round"
	SEVEN=$(disk 7)
	# It is the same disk each time, with what was written to it.
	[ $round -eq 1 ] || [ "$(blocks "$SEVEN" 8 8 | sha256sum)" = "$sum" ] || fail "LUN 7 has other data in round $round"
	dd if=/dev/urandom of="$SEVEN" bs=4k seek=1 count=1 oflag=direct status=none || fail "write to LUN 7, round $round"
	sum=$(blocks "$SEVEN" 8 8 | sha256sum)
	kill -0 $WORK || { cat /tmp/fio; fail "fio has ended in round $round"; }
	echo 1 >"/sys/block/${SEVEN#/dev/}/device/delete"
	gone() { [ -z "$(disk 7)" ]; }
	wait_for gone || fail "the device of LUN 7 stays"
	ask go >/dev/null || fail "LUN 7 does not go, round $round"
done

step "what came of it"
# A command after the last reload, too, has no error.
rounds 2
end_verifying
# REPORTED LUNS DATA HAS CHANGED, as the kernel puts it.
dmesg | grep 'LUN assignments on this target have changed' | tail -1 | grep . || { dmesg | tail -20; fail "the kernel has learned of no LUN"; }
[ "$(ask logins)" = "$before" ] || fail "$(ask logins) logins after $before"
dmesg | grep -iE 'conn error|session recovery|:0: power-on' && fail "the session has noticed a reload"
quiet_kernel || fail "the kernel complains"

step "the last secret, and no other"
record --logout || fail "logout"
record --login && fail "the first secret is still accepted"
setting auth.password "$(ask secret)"
record --login || fail "login with the last secret"
record --logout || fail "logout"
step "done"
