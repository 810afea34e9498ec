//go:build e2e

package disks

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/guest"
	"odx/internal/kit/harness"
)

//go:embed changes.sh
var changesScript string

// formats are those in which the image makes its way, each with files of its own.
var formats = []string{"vhdx", "vhd"}

// TestJourney takes the image from a raw file into a LUN, makes a virtual disk of that
// and a differencing disk over it, which a Linux machine uses and changes as a LUN;
// then it is merged, compacted, defragmented, converted and made a LUN again.
func TestJourney(t *testing.T) {
	t.Parallel() // programs wait for each other a lot
	harness.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	harness.Program(t, "apt-get", "apt")
	b := start(t)
	requireISCSI(t)
	machine, err := guest.Build(b.ctx)
	if err != nil {
		harness.Missing(t, err.Error())
	}
	b.qemu("convert", "-n", "-f", "raw", "-O", "raw", b.image, b.target.URL(0))
	b.compare(b.target.URL(0), b.image)
	for _, f := range formats {
		base, child := "images/base."+f, "images/child."+f
		b.change("from-volume", "vol0", base)
		b.judge("from-volume", base, b.image)
		b.change("snapshot", base, child)
		b.judge("snapshot", child, b.image)
	}
	b.wantFiles("images/base.vhd", "images/base.vhdx", "images/child.vhd", "images/child.vhdx")

	changed := b.changeInGuest(machine)
	for i, f := range formats {
		b.merge("images/child."+f, "images/base."+f, changed[i])
		b.rewrite("images/base."+f, changed[i])
		fixed := "images/fixed-" + f + ".vhd"
		b.change("convert", "--fixed", "images/base."+f, fixed)
		b.judge("convert --fixed", fixed, changed[i])
		b.change("to-volume", fixed, fmt.Sprintf("vol%d", i+1))
	}
	b.wantFiles("images/base.vhd", "images/base.vhdx", "images/fixed-vhd.vhd", "images/fixed-vhdx.vhd")

	b.serve(kit.LUN{Size: imageSize}, kit.LUN{Size: imageSize}, kit.LUN{Size: imageSize})
	b.compare(b.target.URL(0), b.image)
	for i := range formats {
		b.compare(b.target.URL(i+1), changed[i])
		b.qemu("convert", "-f", "raw", "-O", "raw", b.target.URL(i+1), b.host("back.raw"))
		b.fsck(b.host("back.raw"))
	}
	if err := b.target.CheckStore(b.ctx); err != nil {
		t.Error(err)
	}
}

// requireISCSI looks for qemu's iSCSI driver, which Debian packages apart.
func requireISCSI(t *testing.T) {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/qemu/block-iscsi.so")
	if found == nil {
		harness.Missing(t, "qemu has no iSCSI driver (Debian package qemu-block-extra)")
	}
}

// changeInGuest serves the children as LUNs 1 and 2, has the machine change what they
// show, and returns raw disks with what they show then.
func (b *bed) changeInGuest(machine *guest.Image) (changed []string) {
	b.t.Helper()
	luns := []kit.LUN{{Size: imageSize}}
	for _, f := range formats {
		luns = append(luns, kit.LUN{File: "images/child." + f})
	}
	b.serve(luns...)
	for i := range formats {
		b.compare(b.target.URL(i+1), b.image)
	}
	ctx, cancel := context.WithTimeout(b.ctx, 3*time.Minute)
	defer cancel()
	script := fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s\n%s", b.target.Port(), b.target.IQN, changesScript)
	r, err := machine.Run(ctx, script, guest.Setup{})
	b.t.Log(r.Output)
	if err != nil || r.Status != 0 {
		b.t.Fatalf("the script ended with exit status %d, %v", r.Status, err)
	}
	sums := regexp.MustCompile(`(?m)^LUN \d random ([0-9a-f]{64})$`).FindAllStringSubmatch(r.Output, -1)
	if len(sums) != len(formats) {
		b.t.Fatalf("the script printed %d checksums", len(sums))
	}
	for i, f := range formats {
		raw := b.host("changed-" + f + ".raw")
		b.qemu("convert", "-f", "raw", "-O", "raw", b.target.URL(i+1), raw)
		b.fsck(raw)
		b.wantInImage(raw, "/new/random", sums[i][1])
		changed = append(changed, raw)
	}
	b.serve(luns[0])
	for i, f := range formats {
		b.judge("changes by a guest", "images/child."+f, changed[i])
		b.judge("changes by a guest", "images/base."+f, b.image)
	}
	return changed
}

// merge merges the child into its parent.
func (b *bed) merge(child, base, want string) {
	b.t.Helper()
	b.change("merge", child)
	if parents := b.info(base).Parents; len(parents) > 0 {
		b.t.Errorf("%s has the parents %q", base, parents)
	}
	b.judge("merge", base, want)
}

// rewrite compacts and defragments a disk.
func (b *bed) rewrite(name, want string) {
	b.t.Helper()
	r := b.change("compact", name)
	if r.FileBytes > r.FileBytesBefore {
		b.t.Errorf("compact made %s larger: %d bytes, before %d", name, r.FileBytes, r.FileBytesBefore)
	}
	b.judge("compact", name, want)
	b.change("defrag", name)
	if n := b.info(name).FragmentedBlocks; n != 0 {
		b.t.Errorf("%s has %d blocks out of order after it was defragmented", name, n)
	}
	b.judge("defrag", name, want)
}

// wantInImage checks the SHA-256 of a file in the file system of a raw disk.
func (b *bed) wantInImage(raw, name, want string) {
	b.t.Helper()
	copied := b.host("copied")
	harness.Run(b.ctx, b.t, b.debugfs, "-R", "dump "+name+" "+copied, fmt.Sprintf("%s?offset=%d", raw, partition))
	out := harness.Run(b.ctx, b.t, harness.Program(b.t, "sha256sum", "coreutils"), copied)
	if got, _, _ := strings.Cut(out, " "); got != want {
		b.t.Errorf("%s in %s has the SHA-256 %s, and the guest wrote %s", name, raw, got, want)
	}
}
