# What an administrator sets up for a target that asks for CHAP: $IQN behind
# $PORTAL, whose access list has us see LUN 1 as LUN 5, to be read only.
iscsid || fail "iscsid"
record() { iscsiadm -m node -T "$IQN" -p "$PORTAL" "$@"; }
setting() { record -o update -n "node.session.$1" -v "$2" >/dev/null || fail "setting $1"; }
record -o new >/dev/null || fail "the node record"
setting initial_login_retry_max 1
refused() { record --login && fail "got in $1"; [ "$(ls /sys/class/iscsi_session 2>/dev/null)" = "" ] || fail "a session is left $1"; }

step "without CHAP, and with a wrong secret"
refused "without CHAP"
setting auth.authmethod CHAP
setting auth.username host
setting auth.password "AnotherSecretThanTheHosts"
refused "with a wrong secret"

step "each algorithm, one way"
setting auth.password "$SECRET"
for algorithm in MD5 SHA1 SHA256 SHA3-256 SHA3-256,SHA256,SHA1,MD5; do
	setting auth.chap_algs "$algorithm"
	record --login || fail "login with $algorithm"
	record --logout || fail "logout"
done

step "mutual"
setting auth.username_in target
setting auth.password_in "AnotherSecretThanTheTargets"
refused "although the target proves nothing"
setting auth.password_in "$TARGET_SECRET"
record --login || fail "login"
present() { [ -n "$(disk 5)" ]; }
wait_for present || fail "LUN 5 is not there"
[ -z "$(disk 0)$(disk 1)" ] || fail "there are LUNs that we should not see"

step "a disk to be read only"
DISK=$(disk 5)
[ "$(blockdev --getro "$DISK")" = 1 ] || fail "$DISK may be written"
dd if="$DISK" of=/dev/null bs=64k count=4 iflag=direct status=none || fail "read"
sg_modes "$DISK" | grep -i 'WP=1' || fail "sg_modes does not show WP"
# The kernel writes to no such disk, so the command goes past it.
SG=/dev/$(ls "/sys/block/${DISK#/dev/}/device/scsi_generic")
sg_raw -s 512 -i /dev/zero "$SG" 2a 00 00 00 00 00 00 00 01 00 >/tmp/said 2>&1 && fail "WRITE is not refused"
grep -i 'write protected' /tmp/said || { cat /tmp/said; fail "WRITE is refused for another reason"; }
record --logout || fail "logout"

step "discovery"
discover() { iscsiadm -m discoverydb -t st -p "$PORTAL" "$@"; }
wish() { discover -o update -n "discovery.sendtargets.$1" -v "$2" >/dev/null || fail "setting $1"; }
discover -o new >/dev/null || fail "the discovery record"
wish reopen_max 1
discover --discover && fail "discovery without CHAP"
wish auth.authmethod CHAP
wish auth.username host
wish auth.password "$SECRET"
wish auth.username_in target
wish auth.password_in "$TARGET_SECRET"
discover --discover | grep "$IQN" || fail "discovery does not find the target"
step "done"
