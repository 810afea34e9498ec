// Package guest boots a throw-away Linux machine in qemu's software emulation
// and runs a script in it as root: a way to have the kernel's own SCSI disk
// driver and iSCSI initiator, open-iscsi, sg3-utils and ddpt judge a target,
// on machines whose kernel has none of them. Its kernel and tools are Debian's
// packages, unpacked and never installed. Inside, the host's 127.0.0.1:PORT is
// 10.0.2.2:PORT.
package guest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"odx/internal/kit"
)

//go:embed cpio.go debian.go modules.go image.go layers.go init.sh functions.sh
var sources embed.FS

//go:embed init.sh
var initScript []byte

//go:embed functions.sh
var shellFunctions []byte

// Image is a kernel and the layers of its first root file system.
type Image struct {
	dir string
}

func (i *Image) kernel() string { return filepath.Join(i.dir, "vmlinuz") }

// archive is the file of a layer.
func (i *Image) archive(l Layer) string { return filepath.Join(i.dir, string(l)+".cpio") }

// Build makes the image, or finds the one made before.
func Build(ctx context.Context) (*Image, error) {
	sum := sha256.New()
	if err := hashSources(sum); err != nil {
		return nil, err
	}
	dir, err := kit.CacheDir("guest-" + hex.EncodeToString(sum.Sum(nil)[:8]))
	if err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	image := &Image{dir}
	if _, err := os.Stat(image.kernel()); err == nil {
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

// build puts the kernel in place last, as the mark of a whole image.
func (i *Image) build(ctx context.Context, work string) error {
	kernel, err := kernelPackage(ctx, kernelName)
	if err != nil {
		return err
	}
	packages, err := withLibraries(ctx, allPackages())
	if err != nil {
		return err
	}
	system, err := download(ctx, work, append(packages, kernel))
	if err != nil {
		return err
	}
	available, err := findModules(system)
	if err != nil {
		return err
	}
	root := newArchive(nil)
	for _, l := range layers {
		// A layer is unpacked over the first one and holds what that lacks.
		above, err := i.writeLayer(ctx, l, root, system, available)
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.name, err)
		}
		if l.name == base {
			root = above
		}
	}
	images, err := filepath.Glob(filepath.Join(string(system), "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("%s has kernels %q", kernel, images)
	}
	return os.Rename(images[0], i.kernel())
}

// writeLayer writes the archive of a layer.
func (i *Image) writeLayer(ctx context.Context, l layer, below *archive, system files, available modules) (*archive, error) {
	out, err := os.Create(i.archive(l.name))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	w := bufio.NewWriterSize(out, 1<<20)
	a := below.above(w)
	if l.name == base {
		writeSkeleton(a)
	}
	if err := l.copyTo(ctx, a, system, available); err != nil {
		return nil, err
	}
	return a, errors.Join(a.close(), w.Flush(), out.Close())
}

// writeSkeleton adds what comes from no package.
func writeSkeleton(a *archive) {
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
}
