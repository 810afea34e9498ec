# Makes disk.raw in the current directory: $SIZE_MIB MiB with a GUID partition table and
# one partition from 1 MiB on, in it ext4 with the root file system of Debian $SUITE
# from $MIRROR. Runs under fakeroot, so that files belong to whom they should.
set -eu
# --foreign ends before what has to run as root in the new system: the packages are
# unpacked, and not set up.
debootstrap --foreign --variant=minbase "$SUITE" root ${MIRROR:+"$MIRROR"} >debootstrap.log 2>&1 || {
	tail -n 20 debootstrap.log
	exit 1
}
# It is longer than several payload blocks of a VHDX, which are empty without it.
head -c 100M /dev/urandom >root/large
truncate -s "${SIZE_MIB}M" disk.raw
sectors=$(((SIZE_MIB - 2) * 2048))
printf 'label: gpt\nstart=2048, size=%d, type=linux\n' $sectors | sfdisk --quiet disk.raw
mke2fs -q -F -t ext4 -b 4096 -E offset=1048576 -d root disk.raw "$((SIZE_MIB - 2))M"
