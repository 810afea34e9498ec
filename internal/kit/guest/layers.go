package guest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// kernelName is the meta package of the newest kernel: a flavour without drivers for
// hardware.
const kernelName = "linux-image-cloud-amd64"

// Layer is a set of tools that a machine may have.
type Layer string

const (
	// base is what every machine has: a shell, the initiator, ext4, the tools of
	// an administrator.
	base Layer = "base"
	// Disks has all of sg3_utils, xfs, btrfs, multipath and udev.
	Disks Layer = "disks"
	// Fio is fio, which brings a hundred MB of libraries for what it could use.
	Fio Layer = "fio"
)

// layer is what a Layer is made of.
type layer struct {
	name        Layer
	packages    []string
	programs    []string // with the libraries they need; a pattern may match many
	modules     []string // of the kernel; they are loaded at boot
	texts       []string // files in /etc
	directories []string // copied as they are
}

var layers = []layer{
	{
		name: base,
		packages: []string{"busybox-static", "open-iscsi", "sg3-utils", "ddpt", "e2fsprogs", "logsave",
			"lsscsi", "util-linux", "mount", "coreutils"},
		programs: []string{
			"bin/busybox",
			"sbin/iscsid", "sbin/iscsiadm",
			"bin/sg_inq", "bin/sg_vpd", "bin/sg_opcodes", "bin/sg_readcap", "bin/sg_copy_results", "bin/sg_raw",
			"bin/sg_turs", "bin/sg_luns", "bin/sg_sync", "bin/sg_modes", "bin/sg_unmap", "bin/sg_write_same", "bin/sg_xcopy",
			"bin/ddpt", "bin/ddptctl", "bin/lsscsi",
			"sbin/mke2fs", "sbin/e2fsck", "sbin/blkdiscard", "sbin/blockdev", "sbin/fstrim",
			"bin/mount", "bin/umount", "bin/dd", "bin/sha256sum", "bin/cp", "bin/sync",
			"lib/x86_64-linux-gnu/libgcc_s.so.1", // not linked to, but opened at run time to end threads
		},
		modules: []string{"virtio_pci", "virtio_net", "virtio_console", "virtio_blk", "crc32c_generic", "crc32c_intel", "crct10dif_pclmul",
			"sd_mod", "sg", "iscsi_tcp", "ext4"},
		texts: []string{"etc/iscsi/iscsid.conf", "etc/mke2fs.conf"},
	},
	{
		name:     Disks,
		packages: []string{"xfsprogs", "btrfs-progs", "multipath-tools", "kpartx", "dmsetup", "udev", "sg3-utils-udev"},
		programs: []string{
			"bin/sg_*", "sbin/blkid", "sbin/wipefs", "bin/lsblk", "bin/timeout",
			"sbin/mkfs.xfs", "sbin/xfs_repair", "sbin/mkfs.btrfs", "bin/btrfs",
			"sbin/multipath", "sbin/multipathd", "sbin/mpathpersist", "sbin/dmsetup", "sbin/kpartx",
			"lib/multipath/lib*.so", // loaded at run time
			"bin/udevadm", "lib/systemd/systemd-udevd", "lib/udev/scsi_id",
		},
		modules:     []string{"xfs", "btrfs", "xxhash_generic", "dm-multipath", "scsi-dh-alua", "dm-service-time", "dm-round-robin"},
		directories: []string{"lib/udev/rules.d"},
	},
	{name: Fio, packages: []string{"fio"}, programs: []string{"bin/fio"}},
}

// allPackages are those of all layers.
func allPackages() []string {
	var all []string
	for _, l := range layers {
		all = append(all, l.packages...)
	}
	return all
}

// copyTo adds the layer to an archive, and takes its modules out of available.
func (l layer) copyTo(ctx context.Context, a *archive, system files, available modules) error {
	for _, name := range l.texts {
		data, err := os.ReadFile(filepath.Join(string(system), name))
		if err != nil {
			return err
		}
		a.file(name, 0o644, data)
	}
	for _, pattern := range l.programs {
		names := system.match(pattern)
		if len(names) == 0 {
			return fmt.Errorf("%s is in none of the packages", pattern)
		}
		for _, name := range names {
			if err := system.copyTo(a, name); err != nil {
				return err
			}
		}
	}
	for _, directory := range l.directories {
		if err := system.copyDir(a, directory); err != nil {
			return err
		}
	}
	load, err := available.inOrder(ctx, l.modules)
	if err != nil {
		return err
	}
	for i, m := range load {
		a.file(fmt.Sprintf("usr/modules/%s/%02d-%s.ko", l.name, i, m.name), 0o644, m.data)
	}
	return nil
}

// match returns the names, without the /usr, that match a pattern.
func (f files) match(pattern string) []string {
	var names []string
	for _, root := range []string{filepath.Join(string(f), "usr"), string(f)} {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // our own patterns are well-formed
		for _, p := range found {
			if name := strings.TrimPrefix(p, root+"/"); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// copyDir adds the files of a directory.
func (f files) copyDir(a *archive, directory string) error {
	for _, root := range []string{filepath.Join(string(f), "usr", directory), filepath.Join(string(f), directory)} {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, _ := filepath.Rel(root, p) // p is below root
			return f.copyTo(a, path.Join(directory, rel))
		})
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
