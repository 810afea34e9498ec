# Makes vmlinuz, initrd and disk.raw in the current directory, of Debian $SUITE from $MIRROR:
# a system with systemd, the kernel's initiator and what an administrator of disks uses. Its
# unit "script" unpacks the second disk, a tar archive, at every boot, and runs its file
# "script".
set -eu
mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--include=systemd,systemd-sysv,udev,dbus,kmod,procps,e2fsprogs,open-iscsi,debconf,bash-completion,linux-image-cloud-amd64,initramfs-tools \
	"$SUITE" root.tar ${MIRROR:+"$MIRROR"} >mmdebstrap.log 2>&1 || {
	tail -n 20 mmdebstrap.log
	exit 1
}
# Under fakeroot, files belong to whom they should.
fakeroot sh -eu <<'UNPACK'
mkdir root
tar -C root -xf root.tar --exclude='./dev/*'
cp root/boot/vmlinuz-* vmlinuz
cp root/boot/initrd.img-* initrd
rm -r root/boot/*
units=root/etc/systemd/system
cat >$units/script.service <<'UNIT'
[Unit]
Description=What the test does
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mkdir -p /run/test && tar -C /run/test -xf /dev/vdb && cd /run/test && exec sh ./script >/dev/hvc0 2>&1'
[Install]
WantedBy=multi-user.target
UNIT
ln -s ../script.service $units/multi-user.target.wants/script.service
# What takes time under emulation, and no test needs.
touch root/etc/.updated root/var/.updated
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer \
	getty@tty1.service serial-getty@ttyS0.service modprobe@drm.service modprobe@fuse.service modprobe@loop.service \
	modprobe@efi_pstore.service systemd-pstore.service keyboard-setup.service systemd-firstboot.service; do
	ln -sf /dev/null $units/$unit
done
echo '/dev/vda / ext4 defaults 0 0' >root/etc/fstab
echo 'InitiatorName=iqn.2026-11.example.odx:machine' >root/etc/iscsi/initiatorname.iscsi
truncate -s 1G disk.raw
mke2fs -q -F -t ext4 -d root disk.raw
UNPACK
rm -rf root root.tar
