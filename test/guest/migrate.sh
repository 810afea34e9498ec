# A LUN of $IQN behind $PORTAL: fio writes all of it and verifies, while the host moves it
# $MIGRATIONS times to other volumes.
step "login"
login "$PORTAL" "$IQN" 1 || fail "login"
LOAD=$(disk 0)
dmesg -c >/tmp/early # the login has unit attentions
before=$(ask logins) || fail "logins: $before"
wwid=$(cat /sys/block/"${LOAD#/dev/}"/device/wwid)

dd if=/dev/urandom of="$LOAD" bs=1M seek=32 count=8 oflag=direct status=none || fail "fill"
sum=$(blocks "$LOAD" 65536 16384 | sha256sum)

keep_verifying "$LOAD" 4m
for n in $(seq "$MIGRATIONS"); do
	step "migration $n"
	held=$(ask "migrate $n") || fail "migration $n: $held"
	echo "commands were held for $held ms"
	rounds 1
done

step "what came of it"
end_verifying
dmesg | grep -iE 'conn error|session recovery|power-on|I/O error' && fail "the kernel has noticed a migration"
[ "$(ask logins)" = "$before" ] || fail "$(ask logins) logins after $before"
[ "$wwid" = "$(cat /sys/block/"${LOAD#/dev/}"/device/wwid)" ] || fail "the disk has another name"
[ "$sum" = "$(blocks "$LOAD" 65536 16384 | sha256sum)" ] || fail "what was written before differs"
quiet_kernel || fail "the kernel complains"
logout "$IQN"
step "done"
