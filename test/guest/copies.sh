# Third-party copies between two LUNs of $IQN behind $PORTAL by sg_xcopy,
# sg_copy_results, ddpt and ddptctl. What initiator.sh does by token is not
# repeated. ddpt and ddptctl 0.97 put range descriptors one byte too early: what
# they ask for is 256 times the address and 256 times the count.
step "login"
login "$PORTAL" "$IQN" 2 || fail "login"
SRC=$(disk 0) DST=$(disk 1)
# sg DEVICE: its SCSI generic device, which sg_xcopy wants
sg() { echo "/dev/$(basename "$(readlink "/sys/block/${1#/dev/}/device/generic")")"; }
sum() { blocks "$@" | sha256sum; }
fill() { dd if=/dev/urandom of="$1" bs=1M count="$2" oflag=direct status=none || fail "fill"; }

step "EXTENDED COPY of a whole range, asked of the source and of the destination"
fill "$SRC" 8
sg_xcopy if="$(sg "$SRC")" of="$(sg "$DST")" bs=512 count=16384 --on_src || fail "sg_xcopy --on_src"
[ "$(sum "$SRC" 0 16384)" = "$(sum "$DST" 0 16384)" ] || fail "the copy differs"
fill "$SRC" 8
sg_xcopy if="$(sg "$SRC")" of="$(sg "$DST")" bs=512 count=16384 bpt=4096 --on_dst || fail "sg_xcopy --on_dst"
[ "$(sum "$SRC" 0 16384)" = "$(sum "$DST" 0 16384)" ] || fail "the copy differs"

step "EXTENDED COPY with offsets that are no multiples of 4 KiB, between LUNs and within one"
before=$(sum "$DST" 0 20003) after=$(sum "$DST" 21003 1000)
sg_xcopy if="$(sg "$SRC")" of="$(sg "$DST")" bs=512 skip=1001 seek=20003 count=1000 || fail "sg_xcopy"
[ "$(sum "$SRC" 1001 1000)" = "$(sum "$DST" 20003 1000)" ] || fail "the copy differs"
[ "$before $after" = "$(sum "$DST" 0 20003) $(sum "$DST" 21003 1000)" ] || fail "blocks around the copy changed"
sg_xcopy if="$(sg "$SRC")" of="$(sg "$SRC")" bs=512 skip=8 seek=100001 count=5000 || fail "sg_xcopy"
[ "$(sum "$SRC" 8 5000)" = "$(sum "$SRC" 100001 5000)" ] || fail "the copy differs"
fill "$SRC" 8
ddpt if="$SRC" of="$DST" bs=512 bpt=4000 iflag=pt,xcopy oflag=pt skip=64 seek=30000 count=4000 || fail "ddpt iflag=xcopy"
[ "$(sum "$SRC" 64 4000)" = "$(sum "$DST" 30000 4000)" ] || fail "the copy by ddpt differs"

step "what the copy manager reports"
sg_copy_results --params "$SRC" >/tmp/said || fail "operating parameters"
cat /tmp/said
for words in "Maximum target descriptor count" "Maximum segment descriptor count" "Data segment granularity"; do
	grep -qi "$words" /tmp/said || fail "no $words"
done
sg_xcopy if="$(sg "$SRC")" of="$(sg "$DST")" bs=512 count=64 list_id=7 id_usage=hold --on_src || fail "sg_xcopy with a list identifier"
sg_copy_results --failed --list_id=7 "$SRC" || fail "failed segment details"
sg_copy_results --receive --list_id=7 "$SRC" || fail "receive data"
sg_copy_results --status --list_id=7 "$SRC" >/tmp/said || fail "copy status"
cat /tmp/said
grep -q "completed without errors" /tmp/said || fail "the copy has not completed"
sg_copy_results --status --list_id=77 "$SRC"
[ $? -eq 5 ] || fail "the status of an unknown list identifier is not refused"

step "ddptctl: size, capabilities, every type of token"
ddptctl --size "$SRC" || fail "size"
ddptctl --info "$SRC" || fail "info"
for type in pit-def pit-vuln pit-pers; do
	fill "$SRC" 8
	ddptctl --pt=0,64 --rtype=$type --timeout=60 --rtf=/tmp/token "$SRC" || fail "POPULATE TOKEN, $type"
	ddptctl --info --rtf=/tmp/token || fail "the token is not understood"
	ddptctl --wut=16,64 --rtf=/tmp/token "$DST" || fail "WRITE USING TOKEN, $type"
	[ "$(sum "$SRC" 0 16384)" = "$(sum "$DST" 4096 16384)" ] || fail "the copy differs"
done

step "ddptctl: a token that is deleted with its use, and any type of point in time"
ddptctl --pt=0,64 --rtype=pit-any --rtf=/tmp/token "$SRC" || fail "POPULATE TOKEN, pit-any"
ddptctl --wut=16,64 --del_tkn --rtf=/tmp/token "$DST" || fail "WRITE USING TOKEN, DEL_TKN"
ddptctl --wut=16,64 --rtf=/tmp/token "$DST" && fail "a deleted token is taken"

step "ddptctl: in the background, with and without RECEIVE COPY STATUS, and at an offset"
fill "$SRC" 8
ddptctl --pt=0,64 --immed --list_id=0x21 "$SRC" || fail "POPULATE TOKEN, IMMED"
ddptctl --poll --list_id=0x21 --rtf=/tmp/token "$SRC" || fail "poll for the token"
ddptctl --receive --list_id=0x21 "$SRC" || fail "RECEIVE ROD TOKEN INFORMATION"
ddptctl --wut=32,32 --oir=8192 --immed --list_id=0x22 --rtf=/tmp/token "$DST" || fail "WRITE USING TOKEN, IMMED"
ddptctl --poll --prefer-rcs --list_id=0x22 "$DST" || fail "poll for the end"
[ "$(sum "$SRC" 8192 8192)" = "$(sum "$DST" 8192 8192)" ] || fail "the copy at an offset differs"
ddptctl --all_toks "$SRC" || fail "REPORT ALL ROD TOKENS"
ddptctl --abort --list_id=0x22 "$DST"
[ $? -eq 5 ] || fail "the abort of what has ended is not refused"

step "ddpt: a token to a file and from a file, and the zero token"
fill "$SRC" 8
rm /tmp/token
# It finds 256 times the blocks that it asked for, and ends with an error where
# it was to write them: the data shows it.
ddpt if="$SRC" bs=512 iflag=pt,odx skip=0,64 rtf=/tmp/token || fail "ddpt to a token"
[ "$(wc -c </tmp/token)" -ge 512 ] || fail "the token has $(wc -c </tmp/token) bytes"
ddpt of="$DST" bs=512 oflag=pt,odx seek=64,64 rtf=/tmp/token
[ "$(sum "$SRC" 0 16384)" = "$(sum "$DST" 16384 16384)" ] || fail "the copy differs"
ddpt if=/dev/null of="$DST" bs=512 rtype=zero oflag=pt,odx seek=64,8 || fail "ddpt with the zero token"
[ "$(head -c 1048576 /dev/zero | sha256sum)" = "$(sum "$DST" 16384 2048)" ] || fail "not zero"

step "logout"
logout "$IQN"
step "done"
