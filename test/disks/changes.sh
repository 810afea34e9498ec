# Changes the file system in the first partition of LUNs 1 and 2 of $IQN behind
# $PORTAL, both alike: writes, overwrites, deletes, gives back what is free.
step "login"
login "$PORTAL" "$IQN" 3 || fail "login"

for LUN in 1 2; do
	D=$(disk $LUN)
	[ -b "$D" ] || fail "LUN $LUN is not there"
	step "LUN $LUN is $D"
	there() { [ -b "${D}1" ]; }
	wait_for there || fail "$D has no partition"
	mount "${D}1" /mnt || fail "mount"
	[ -x /mnt/usr/bin/bash ] || fail "there is no system on it"
	system=$(sha256sum </mnt/usr/bin/bash)

	step "write, overwrite, delete"
	mkdir /mnt/new || fail "mkdir"
	dd if=/dev/urandom of=/mnt/new/random bs=1M count=20 conv=fsync status=none || fail "write"
	# In the middle of a file that the parent has, at no border of anything.
	printf 'a few bytes in the middle' | dd of=/mnt/usr/bin/perl bs=1 seek=100001 conv=notrunc status=none || fail "overwrite"
	cp -a /mnt/etc /mnt/new/etc || fail "copy"
	rm /mnt/large || fail "delete the large file"
	rm -rf /mnt/usr/share/doc /mnt/usr/share/locale /mnt/var/cache/apt/archives || fail "delete"
	dd if=/dev/urandom of=/mnt/new/short bs=1M count=8 conv=fsync status=none || fail "write"
	rm /mnt/new/short && sync -f /mnt || fail "delete what was new"
	fstrim -v /mnt || fail "fstrim"
	random=$(sha256sum </mnt/new/random) perl=$(sha256sum </mnt/usr/bin/perl)
	umount /mnt || fail "umount"

	step "what was written is there"
	blockdev --flushbufs "$D"
	mount -o ro "${D}1" /mnt || fail "mount again"
	[ "$random" = "$(sha256sum </mnt/new/random)" ] || fail "the new file differs"
	[ "$perl" = "$(sha256sum </mnt/usr/bin/perl)" ] || fail "the changed file differs"
	[ "$system" = "$(sha256sum </mnt/usr/bin/bash)" ] || fail "a file that was not changed differs"
	umount /mnt || fail "umount"
	e2fsck -f -n "${D}1" || fail "the file system is damaged"
	echo "LUN $LUN random ${random%% *}"
done
quiet_kernel || fail "the kernel complains"
logout "$IQN"
step "done"
