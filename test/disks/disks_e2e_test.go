//go:build e2e

package disks

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "odx/api/v1"
	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// bed is a running server, and those who judge what is in it.
type bed struct {
	t      *testing.T
	ctx    context.Context
	target *kit.Target
	// image is a host file with the raw disk that all begins with.
	image string
	// dir is for what a step leaves on the host until the next one.
	dir                                string
	qemuImg, vhdiinfo, e2fsck, debugfs string
}

// start serves a volume, vol0, that has the length of the image.
func start(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, dir: t.TempDir(),
		qemuImg:  harness.Program(t, "qemu-img", "qemu-utils"),
		vhdiinfo: harness.Program(t, "vhdiinfo", "libvhdi-utils"),
		e2fsck:   harness.Program(t, "e2fsck", "e2fsprogs"),
		debugfs:  harness.Program(t, "debugfs", "e2fsprogs"),
	}
	for name, pkg := range map[string]string{"mke2fs": "e2fsprogs", "sfdisk": "fdisk", "debootstrap": "debootstrap", "fakeroot": "fakeroot"} {
		harness.Program(t, name, pkg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	b.ctx = ctx
	var err error
	if b.image, err = Image(ctx); err != nil {
		harness.Missing(t, err.Error())
	}
	b.target = harness.ServeWith(t, kit.Settings{}, kit.LUN{Size: imageSize})
	return b
}

func (b *bed) host(name string) string { return filepath.Join(b.dir, name) }

// admin runs an odx command and decodes what it prints.
func (b *bed) admin(into any, args ...string) {
	b.t.Helper()
	if err := b.target.Admin(b.ctx, into, args...); err != nil {
		b.t.Fatal(err)
	}
}

// change runs an operation on virtual disks, which must move no bytes.
func (b *bed) change(args ...string) v1.DiskResult {
	b.t.Helper()
	var r v1.DiskResult
	b.admin(&r, append([]string{"vhd"}, args...)...)
	if r.MovedBytes != 0 {
		b.t.Errorf("odx vhd %s moved %d bytes", strings.Join(args, " "), r.MovedBytes)
	}
	return r
}

// serve has the server serve these LUNs from now on.
func (b *bed) serve(luns ...kit.LUN) {
	b.t.Helper()
	if err := b.target.Stop(); err != nil {
		b.t.Fatal(err)
	}
	b.target.LUNs = luns
	if err := b.target.Restart(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

// qemu runs qemu-img, which must have no complaint.
func (b *bed) qemu(args ...string) {
	b.t.Helper()
	out := harness.Run(b.ctx, b.t, b.qemuImg, args...)
	if out != "" && out != "Images are identical.\n" && !strings.HasPrefix(out, "No errors were found on the image.\n") {
		b.t.Errorf("qemu-img %s complains:\n%.2000s", strings.Join(args, " "), out)
	}
}

// drivers are what qemu calls the formats.
var drivers = map[string]string{".vhd": "vpc", ".vhdx": "vhdx", ".raw": "raw"}

// compare has qemu-img compare an image, a file or the URL of a LUN, with a raw file.
func (b *bed) compare(image, want string) {
	b.t.Helper()
	driver := drivers[filepath.Ext(image)]
	if driver == "" {
		driver = "raw"
	}
	b.qemu("compare", "-f", driver, "-F", "raw", image, want)
}

// partition is where the only partition of the image begins, in bytes.
const partition = 1 << 20

// fsck has e2fsck look at the file system in the partition of a raw disk.
func (b *bed) fsck(raw string) {
	b.t.Helper()
	harness.Run(b.ctx, b.t, b.e2fsck, "-f", "-n", fmt.Sprintf("%s?offset=%d", raw, partition))
}

// judge has everyone judge a virtual disk in the store, which is to have the contents
// of the raw disk want.
func (b *bed) judge(step, name, want string) {
	b.t.Helper()
	began := time.Now()
	var check v1.DiskCheck
	b.admin(&check, "vhd", "check", name)
	if !check.Sound {
		b.t.Errorf("%s: odx vhd check of %s: %+v", step, name, check.Findings)
	}
	raw := b.export(name, "exported.raw")
	b.compare(raw, want)
	b.fsck(raw)
	file := b.export(name, "exported"+filepath.Ext(name))
	b.judgeFile(file, want, b.info(name).Kind == "differencing")
	if b.t.Failed() {
		b.t.Fatalf("%s: %s is not what it should be", step, name)
	}
	b.t.Logf("%s: %s is right; judged in %v", step, name, time.Since(began).Round(time.Millisecond))
	for _, f := range []string{raw, file} {
		if err := os.Remove(f); err != nil {
			b.t.Fatal(err)
		}
	}
}

// judgeFile has others judge a virtual disk on the host. A differencing one says
// little without its parent, and qemu does not open it.
func (b *bed) judgeFile(file, want string, differencing bool) {
	b.t.Helper()
	if out := harness.Run(b.ctx, b.t, b.vhdiinfo, file); !strings.Contains(out, "Virtual Hard Disk") {
		b.t.Errorf("vhdiinfo says of %s:\n%s", file, out)
	}
	if differencing {
		return
	}
	b.compare(file, want)
	if filepath.Ext(file) == ".vhdx" { // qemu's vpc driver knows no check
		b.qemu("check", "-f", "vhdx", file)
	}
}

// export copies a virtual disk to the host.
func (b *bed) export(name, local string) string {
	b.t.Helper()
	b.admin(nil, "vhd", "export", "--overwrite", name, b.host(local))
	return b.host(local)
}

func (b *bed) info(name string) (d v1.Disk) {
	b.t.Helper()
	b.admin(&d, "vhd", "info", name)
	return d
}

// wantFiles checks which files the store has.
func (b *bed) wantFiles(names ...string) {
	b.t.Helper()
	var files []v1.File
	b.admin(&files, "file", "list")
	var have []string
	for _, f := range files {
		have = append(have, f.Name)
	}
	if strings.Join(have, " ") != strings.Join(names, " ") {
		b.t.Errorf("the store has the files %q, not %q", have, names)
	}
}
