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

keep_verifying "$LOAD" 2m
keep_measuring "$PROBE" --size=4m

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
end_verifying
end_measuring /tmp/replaced
[ "$sum" = "$(blocks "$LOAD" 65536 16384 | sha256sum)" ] || fail "what was written before differs"
quiet_kernel || fail "the kernel complains"
logout "$IQN"
step "done"
