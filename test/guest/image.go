// Package guest boots a throw-away Linux machine in qemu's software emulation
// and runs a script in it as root: a way to have the kernel's own SCSI disk
// driver and iSCSI initiator, open-iscsi, sg3-utils and ddpt judge a target,
// on machines whose kernel has none of them. Its kernel and tools are Debian's
// packages, unpacked and never installed. Inside, the host's 127.0.0.1:PORT is
// 10.0.2.2:PORT.
package guest

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"odx/test/undertest"
)

// recipe is what an image is made of.
var recipe = struct {
	kernel, packages, programs, modules, texts []string
}{
	kernel: []string{"linux-image-cloud-amd64"},
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
	},
	modules: []string{"virtio_pci", "virtio_net", "virtio_console", "virtio_blk", "crc32c_generic", "crc32c_intel", "crct10dif_pclmul",
		"sd_mod", "sg", "iscsi_tcp", "ext4"},
	texts: []string{"etc/iscsi/iscsid.conf", "etc/mke2fs.conf"},
}

//go:embed cpio.go debian.go modules.go image.go init.sh functions.sh
var sources embed.FS

//go:embed init.sh
var initScript []byte

//go:embed functions.sh
var shellFunctions []byte

// Image is a kernel and its first root file system.
type Image struct {
	kernel, initrd string
}

// Build makes the image, or finds the one made before.
func Build(ctx context.Context) (*Image, error) {
	sum := sha256.New()
	if err := hashSources(sum); err != nil {
		return nil, err
	}
	dir, err := undertest.CacheDir("guest-" + hex.EncodeToString(sum.Sum(nil)[:8]))
	if err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	image := &Image{kernel: filepath.Join(dir, "vmlinuz"), initrd: filepath.Join(dir, "initrd")}
	if _, err := os.Stat(image.initrd); err == nil {
		return image, nil
	}
	work, err := os.MkdirTemp(dir, "work")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	if err := image.build(ctx, work); err != nil {
		return nil, fmt.Errorf("build the Linux guest: %w", err)
	}
	return image, nil
}

// hashSources makes an image as old as the code that builds it.
func hashSources(w io.Writer) error {
	return fs.WalkDir(sources, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := sources.ReadFile(name)
		fmt.Fprintf(w, "%s %d\n%s", name, len(b), b)
		return err
	})
}

// lock waits until no other process builds.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func (i *Image) build(ctx context.Context, work string) error {
	kernel, err := kernelPackage(ctx, recipe.kernel[0])
	if err != nil {
		return err
	}
	packages, err := withLibraries(ctx, recipe.packages)
	if err != nil {
		return err
	}
	system, err := download(ctx, work, append(packages, kernel))
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(work, "initrd"))
	if err != nil {
		return err
	}
	defer out.Close()
	if err := writeRoot(ctx, out, system); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(string(system), "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("%s has kernels %q", kernel, images)
	}
	if err := os.Rename(images[0], i.kernel); err != nil {
		return err
	}
	return os.Rename(out.Name(), i.initrd)
}

// writeRoot writes the archive with the root file system.
func writeRoot(ctx context.Context, w io.Writer, system files) error {
	a := newArchive(w)
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "mnt", "root", "var/lib/iscsi", "usr/applets", "usr/modules"} {
		a.dir(d)
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		a.dir("usr/" + d)
		a.link(d, "usr/"+d)
	}
	a.link("etc/mtab", "/proc/self/mounts")
	a.link("var/run", "/run")
	a.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.file("etc/group", 0o644, []byte("root:x:0:\ndisk:x:6:\n"))
	a.file("etc/iscsi/initiatorname.iscsi", 0o644, []byte("InitiatorName=iqn.2026-11.example.odx:guest\n"))
	a.file("init", 0o755, initScript)
	a.file("usr/functions.sh", 0o644, shellFunctions)
	for _, name := range recipe.texts {
		data, err := os.ReadFile(filepath.Join(string(system), name))
		if err != nil {
			return err
		}
		a.file(name, 0o644, data)
	}
	for _, name := range recipe.programs {
		if err := system.copyTo(a, name); err != nil {
			return err
		}
	}
	// Not linked to, but opened at run time to end threads.
	if err := system.copyTo(a, "lib/x86_64-linux-gnu/libgcc_s.so.1"); err != nil {
		return err
	}
	available, err := findModules(system)
	if err != nil {
		return err
	}
	load, err := available.inOrder(ctx, recipe.modules)
	if err != nil {
		return err
	}
	for i, m := range load {
		a.file(fmt.Sprintf("usr/modules/%02d-%s.ko", i, m.name), 0o644, m.data)
	}
	return a.close()
}
