# What an administrator would do with two LUNs of $IQN behind $PORTAL, LUN $FIRST
# and the one after it (where TOKENS is empty it may be a plain target): use the first as a disk, then copy by token to the other.
step "login"
login "$PORTAL" "$IQN" 2 || fail "login"
SRC=$(disk "$FIRST") DST=$(disk $((FIRST + 1)))
[ -b "$SRC" ] && [ -b "$DST" ] || fail "the disks are '$SRC' and '$DST'"
lsscsi -g

step "a file system"
mkfs.ext4 -q -F "$SRC" || fail "mkfs.ext4"
mount "$SRC" /mnt || fail "mount"
dd if=/dev/urandom of=/mnt/file bs=1M count=16 conv=fsync status=none || fail "write"
sum=$(sha256sum </mnt/file)
umount /mnt || fail "umount"
e2fsck -f -n "$SRC" || fail "e2fsck"
blockdev --flushbufs "$SRC"
mount "$SRC" /mnt || fail "mount again"
[ "$sum" = "$(sha256sum </mnt/file)" ] || fail "the file differs after a remount"
rm /mnt/file
[ -z "$TOKENS" ] || fstrim -v /mnt || fail "fstrim"
umount /mnt || fail "umount"
e2fsck -f -n "$SRC" || fail "e2fsck after fstrim"

step "what the kernel made of it"
for name in queue/logical_block_size queue/discard_max_bytes queue/write_zeroes_max_bytes device/queue_depth device/scsi_level; do
	echo "$name $(cat "/sys/block/${SRC#/dev/}/$name")"
done
! dmesg | grep -iE 'i/o error|medium error|buffer i/o|sense key|call trace' || fail "the kernel complains"

if [ -z "$TOKENS" ]; then
	iscsiadm -m node -T "$IQN" --logout || fail "logout"
	exit 0
fi

step "what sg3_utils decode"
sg_inq "$SRC" || fail "sg_inq"
sg_inq "$SRC" | grep -q '3PC=1' || fail "3PC is not set"
sg_vpd "$SRC" || fail "sg_vpd"
sg_vpd -p tpc "$SRC" || fail "sg_vpd -p tpc"
sg_vpd -p tpc "$SRC" | grep -qi 'block device ROD' || fail "no block device ROD limits"
for page in di bl bdc lbpv sn; do sg_vpd -p $page "$SRC" || fail "sg_vpd -p $page"; done
for action in 0x10 0x11; do sg_opcodes --opcode=0x83,$action "$SRC" || fail "sg_opcodes 83h/$action"; done
sg_opcodes --opcode=0x84,0x07 "$SRC" || fail "sg_opcodes 84h/07h"
ddptctl --info "$SRC" || fail "ddptctl --info"

# ddpt and ddptctl 0.97 put range descriptors one byte too early, so a target
# that follows SBC-4 sees 256 times the address and 256 times the count.
step "ddptctl: populate and write"
dd if=/dev/urandom of="$SRC" bs=1M count=32 oflag=direct status=none || fail "fill"
dd if=/dev/urandom of="$DST" bs=1M count=32 oflag=direct status=none || fail "fill"
before=$(blocks "$DST" 0 8192 | sha256sum)
ddptctl --pt=16,64 --rtf=/tmp/token "$SRC" || fail "POPULATE TOKEN"
ddptctl --info --rtf=/tmp/token || fail "the token is not understood"
want=$(blocks "$SRC" 4096 16384 | sha256sum)
dd if=/dev/zero of="$SRC" bs=1M count=16 oflag=direct status=none || fail "write over the source"
ddptctl --wut=32,64 --rtf=/tmp/token "$DST" || fail "WRITE USING TOKEN"
[ "$want" = "$(blocks "$DST" 8192 16384 | sha256sum)" ] || fail "the copy differs"
[ "$before" = "$(blocks "$DST" 0 8192 | sha256sum)" ] || fail "blocks before the copy changed"

step "ddptctl: the zero token, and a deleted one"
ddptctl --wut=40,1 --rtype=zero --rtf=/tmp/token "$DST" || fail "zero token"
[ "$(head -c 131072 /dev/zero | sha256sum)" = "$(blocks "$DST" 10240 256 | sha256sum)" ] || fail "not zero"
ddptctl --wut=0,0 --del_tkn --rtf=/tmp/token "$DST" || fail "delete the token"
ddptctl --wut=32,64 --rtf=/tmp/token "$DST"
[ $? -eq 119 ] || fail "ddptctl's status for a deleted token is not 110 + ASCQ 09h"

step "ddpt: the whole copy"
dd if=/dev/urandom of="$SRC" bs=1M count=16 oflag=direct status=none || fail "fill"
ddpt if="$SRC" of="$DST" bs=512 iflag=pt,odx oflag=pt skip=0,64 seek=128,64 || fail "ddpt"
[ "$(blocks "$SRC" 0 16384 | sha256sum)" = "$(blocks "$DST" 32768 16384 | sha256sum)" ] || fail "the copy by ddpt differs"

step "logout"
iscsiadm -m node -T "$IQN" --logout || fail "logout"
step "done"
