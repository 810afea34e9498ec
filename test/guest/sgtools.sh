# sg3_utils against two LUNs of $IQN behind $PORTAL, over two sessions, which
# are two I_T nexuses: each command must say what the one before has done.
step "login, twice"
iscsid && iscsiadm -m node -T "$IQN" -p "$PORTAL" -o new || fail "node record"
iscsiadm -m node -T "$IQN" -o update -n node.session.nr_sessions -v 2 || fail "two sessions"
iscsiadm -m node -T "$IQN" --login || fail "login"
four() { [ "$(ls -d /sys/class/iscsi_session/session*/device/target*/*:*/block/* | wc -l)" = 4 ]; }
wait_for four || fail "not two disks in two sessions"
set -- $(disk 0)
A=$1 B=$2 # the same LUN by one session and the other

# says WORDS COMMAND...: it succeeds, and prints the words; where it does not,
# its output is shown
says() {
	words=$1
	shift
	"$@" >/tmp/said 2>&1 && grep -qF -- "$words" /tmp/said && return
	cat /tmp/said
	fail "'$*' ends with $?, or does not say '$words'"
}
# ends STATUS COMMAND...: with this exit status, of sg3_utils(8)
ends() {
	want=$1
	shift
	"$@" >/tmp/said 2>&1
	got=$?
	[ $got -eq "$want" ] && return
	cat /tmp/said
	fail "'$*' ends with status $got, not $want"
}
OUT_OF_RANGE=22 INVALID_OPCODE=9 MISCOMPARE=14 CONFLICT=24
same() { [ "$(sha256sum </tmp/got)" = "$(sha256sum <"$1")" ] || fail "$2"; }
# got FIRST COUNT: blocks of $D, into /tmp/got
got() { dd if="$D" of=/tmp/got bs="$BS" skip="$1" count="$2" iflag=direct status=none || fail "read"; }
# settle DEVICE...: they have reported the unit attentions that they must
settle() {
	for d in "$@"; do
		wait_for sg_turs "$d" || fail "$d is not ready"
	done
}

step "what it says of itself"
says "Third party copy VPD page" sg_vpd --all "$A"
grep -iE 'malformed|too short|invalid|truncated' /tmp/said && fail "sg_vpd finds fault"
for page in sv sn di ei tpc bl bdc lbpv; do ends 0 sg_vpd -p $page "$A"; done
says "PQual=0  PDT=0  RMB=0" sg_inq "$A"
for name in "Write same(16)" "Compare and write" "Persistent reserve out, register and move" "Unmap" "Report target port groups" "Get LBA status"; do
	says "$name" sg_opcodes "$A"
done
says "Abort task" sg_opcodes --tmf "$A"
says "recommended timeout" sg_opcodes --rctd --opcode=0x83,0x10 "$A"
says "Logical block provisioning" sg_logs --all "$A"
grep -iE 'unable|malformed|illegal' /tmp/said && fail "sg_logs finds fault"
says "Used LBA mapping threshold resource count" sg_logs --page=0xc "$A"
for control in 0 1 2; do says "Caching" sg_modes -a -c $control "$A"; done
says "Control extension" sg_modes -p 0x3f,0xff "$A"
says "lbpme=1, lbprz=1" sg_readcap --16 "$A"
says "No Sense" sg_requests "$A"
says "2 lun entries" sg_luns -v "$A"
says "active/optimized" sg_rtpg -d "$A"
ends $INVALID_OPCODE sg_ident "$A"

for LUN in 0 1; do
	D=$(disk $LUN | head -n 1)
	BS=$(cat "/sys/block/${D#/dev/}/queue/logical_block_size")
	step "blocks of $BS bytes: write, verify, compare"
	settle "$D"
	dd if=/dev/urandom of=/tmp/one bs="$BS" count=1 status=none
	dd if=/dev/urandom of=/tmp/two bs="$BS" count=1 status=none
	ends 0 sg_write_same --16 --in=/tmp/one --lba=64 --num=64 "$D"
	got 127 1
	same /tmp/one "WRITE SAME wrote something else"
	ends 0 sg_verify --16 --lba=64 --count=1 --ndo="$BS" --in=/tmp/one "$D"
	ends $MISCOMPARE sg_verify --16 --lba=64 --count=1 --ndo="$BS" --in=/tmp/two "$D"
	ends $MISCOMPARE sg_compare_and_write --quiet --inc=/tmp/two --inw=/tmp/two --lba=70 --xferlen=$((2 * BS)) "$D"
	ends 0 sg_compare_and_write --inc=/tmp/one --inw=/tmp/two --lba=70 --xferlen=$((2 * BS)) "$D"
	got 70 1
	same /tmp/two "COMPARE AND WRITE wrote something else"
	ends 0 sg_write_verify --16 --in=/tmp/two --lba=71 --num=1 "$D"
	got 71 1
	same /tmp/two "WRITE AND VERIFY wrote something else"
	unit=$((4096 / BS)) # of atomic writes
	dd if=/dev/urandom of=/tmp/unit bs=4096 count=1 status=none
	ends 0 sg_write_x --atomic=0 --in=/tmp/unit --lba=80 --num=$unit "$D"
	ends 0 sg_write_x --or --in=/tmp/unit --lba=80 --num=$unit "$D"
	got 80 $unit
	same /tmp/unit "WRITE ATOMIC and ORWRITE of the same wrote something else"
	ends 0 sg_seek --pre-fetch --lba=64 --num-blocks=8 "$D"
	ends 0 sg_sync "$D"
	ends $OUT_OF_RANGE sg_verify --16 --lba=$(($(blockdev --getsize64 "$D") / BS)) --count=1 "$D"

	step "blocks of $BS bytes: give back"
	says "[1] LBA: 0x0000000000000040  blocks:         64  mapped" sg_get_lba_status --lba=64 "$D"
	ends 0 sg_unmap --force --lba=64 --num=32 "$D"
	says "[1] LBA: 0x0000000000000040  blocks:         32  deallocated" sg_get_lba_status --lba=64 "$D"
	got 64 32
	head -c $((32 * BS)) /dev/zero >/tmp/zeros
	same /tmp/zeros "unmapped blocks are not zero"
	ends 0 sg_write_same --16 --unmap --ndob --lba=96 --num=32 "$D"
	says "deallocated" sg_get_lba_status --lba=127 "$D"
	ends 0 sg_write_same --16 --in=/tmp/one --lba=0 --num=8 "$D"
	ends 0 sg_sanitize --block --quick --wait "$D"
	says "[1] LBA: 0x0000000000000000  blocks:     $(printf %6d $(($(blockdev --getsize64 "$D") / BS)))  deallocated" sg_get_lba_status --lba=0 "$D"
done

step "state: start, prevent, defects, mode pages"
ends 0 sg_start --stop "$A"
ends 0 sg_turs "$A" # a stop changes nothing
ends 0 sg_start --start "$A"
ends 0 sg_turs "$A"
ends 0 sg_prevent --prevent=1 "$A"
ends 0 sg_prevent --allow "$A"
says "Elements in grown defect list: 0" sg_reassign --grown "$A"
ends 0 sg_wr_mode --page=8 --contents=08,12,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00 "$A"
says "8 12 00 00" sg_modes -p 8 "$A" # whether or not PS is set next to the 08
ends 0 sg_wr_mode --page=8 --contents=08,12,04,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00 "$A"
ends 0 sg_reset --device --no-escalate "$A"
ends 6 sg_turs "$A" # of the reset
settle "$A" "$B"

step "persistent reservations"
pr() { sg_persist --no-inquiry "$@"; }
ends 0 pr --out --register --param-sark=0xa1 "$A"
ends 0 pr --out --register-ignore --param-sark=0xb2 "$B"
says "2 registered reservation key" pr --in --read-keys "$A"
ends 0 pr --out --reserve --param-rk=0xa1 --prout-type=5 "$A"
says "Write Exclusive, registrants only" pr --in --read-reservation "$B"
says "iqn.2026-11.example.odx:guest" pr --in --read-full-status "$B"
ends $CONFLICT pr --out --reserve --param-rk=0xb2 --prout-type=1 "$B"
ends $CONFLICT pr --out --release --param-rk=0xff --prout-type=5 "$A"
ends 0 pr --out --release --param-rk=0xa1 --prout-type=5 "$A"
says "there is NO reservation held" pr --in --read-reservation "$A"
ends 0 pr --out --reserve --param-rk=0xa1 --prout-type=1 "$A"
settle "$B" # it was notified of the release
dd if=/dev/urandom of=/tmp/one bs=512 count=1 status=none
ends $CONFLICT sg_write_same --16 --in=/tmp/one --lba=0 --num=1 "$B"
ends 0 sg_verify --16 --lba=0 --count=1 "$B"
ends 0 sg_write_same --16 --in=/tmp/one --lba=0 --num=1 "$A"
ends 0 pr --out --preempt --param-rk=0xb2 --param-sark=0xa1 --prout-type=3 "$B"
says "Exclusive Access" pr --in --read-reservation "$B"
says "1 registered reservation key" pr --in --read-keys "$B"
settle "$A" # it was notified that it was preempted
ends $CONFLICT sg_verify --16 --lba=0 --count=1 "$A"
ends 0 pr --out --register --param-sark=0xa1 "$A"
ends 0 pr --out --preempt-abort --param-rk=0xb2 --param-sark=0xa1 --prout-type=3 "$B"
settle "$A"
ends 0 pr --out --clear --param-rk=0xb2 "$B"
says "there are NO registered reservation keys" pr --in --read-keys "$B"
says "Persist Through Power Loss Capable(PTPL_C): 1" pr --in --report-capabilities "$B"

step "target port groups"
GROUP=$(sg_rtpg -d "$A" | sed -n 's/.*target port group id : \(0x[0-9a-f]*\).*/\1/p' | head -n 1)
ends 0 sg_stpg --tp="$GROUP" --state=an "$A"
says "active/non optimized" sg_rtpg -d "$A"
settle "$A" "$B" # they were notified of the change
ends 0 sg_stpg --tp="$GROUP" --state=ao "$A"
says "active/optimized" sg_rtpg -d "$A"

step "logout"
logout "$IQN"
step "done"
