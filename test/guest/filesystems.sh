# Makes ext4, xfs and btrfs on the first LUN of $IQN behind $PORTAL, and the one
# that heeds the block length on the second; uses and checks them; what is deleted must give its space back to the store. The host
# reports how many bytes the store holds ("live").
step "login"
login "$PORTAL" "$IQN" 2 || fail "login"

# write_and_forget: a file of random data is in the store, comes back as it was,
# and gives its space back where it is removed in the way of "$1"
write_and_forget() {
	before=$(ask live) || fail "live: $before"
	dd if=/dev/urandom of=/mnt/file bs=1M count=12 conv=fsync status=none || fail "write"
	sum=$(sha256sum </mnt/file)
	after=$(ask live) || fail "live: $after"
	[ $((after - before)) -ge 12000000 ] || fail "12 MiB are written and the store has grown by $((after - before))"
	umount /mnt && blockdev --flushbufs "$D" && mount -t "$FS" -o "$1" "$D" /mnt || fail "mount again"
	[ "$sum" = "$(sha256sum </mnt/file)" ] || fail "the file differs after a remount"
	rm /mnt/file && sync -f /mnt || fail "rm"
	freed() { now=$(ask live) && [ $((after - now)) -ge 12000000 ]; }
	# xfs frees the blocks of a deleted file in the background, after sync too: what one
	# fstrim comes too early for, the next one finds, and none does after umount.
	trimmed() { fstrim /mnt && freed; }
	case $1 in *nodiscard*) wait_for trimmed || fail "fstrim leaves $now bytes in the store, of $after with the file" ;; esac
	umount /mnt || fail "umount"
	wait_for freed || fail "the file is deleted and the store holds $now bytes, of $after with it and $before without"
	echo "$FS, $1: $before bytes in the store, with the file $after, without it $now"
}

make() {
	case $FS in
	ext4) mkfs.ext4 -q -F "$D" ;;
	xfs) mkfs.xfs -q -f "$D" ;;
	btrfs) mkfs.btrfs -q -f "$D" ;;
	esac
}

check() {
	case $FS in
	ext4) e2fsck -f -n "$D" ;;
	xfs) xfs_repair -n "$D" >/tmp/check 2>&1 || { cat /tmp/check; return 1; } ;;
	btrfs) btrfs check "$D" >/tmp/check 2>&1 || { cat /tmp/check; return 1; } ;;
	esac
}

for where in ext4:0 xfs:0 btrfs:0 xfs:1; do
	FS=${where%:*}
	D=$(disk ${where#*:})
	[ -b "$D" ] || fail "no disk for $where"
	step "$FS on blocks of $(cat "/sys/block/${D#/dev/}/queue/logical_block_size") bytes"
	wipefs -q -a "$D" || fail "wipefs"
	make || fail "mkfs"
	[ "$(blkid -p -o value -s TYPE "$D")" = $FS ] || fail "blkid says $(blkid -p "$D")"
	case $FS in btrfs) discard=discard=sync ;; *) discard=discard ;; esac
	mount -t $FS -o $discard "$D" /mnt || fail "mount"
	write_and_forget $discard
	mount -t $FS -o nodiscard "$D" /mnt || fail "mount"
	write_and_forget nodiscard
	check || fail "the file system is damaged"
done

step "blkdiscard gives everything back"
for LUN in 0 1; do blkdiscard -f "$(disk $LUN)" || fail "blkdiscard"; done
empty() { now=$(ask live) && [ "$now" -eq 0 ]; }
wait_for empty || fail "the store holds $now bytes of two empty disks"
quiet_kernel || fail "the kernel complains"
logout "$IQN"
step "done"
