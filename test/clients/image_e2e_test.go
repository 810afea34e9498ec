//go:build e2e

package clients

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

const imageSize = 256 << 20

// TestImageThroughLUN puts an ext4 image with real files into a LUN, compares
// the two, takes the image out again and has it checked.
func TestImageThroughLUN(t *testing.T) {
	qemuImg := harness.Program(t, "qemu-img", "qemu-utils")
	requireISCSI(t)
	mkfs := harness.Program(t, "mkfs.ext4", "e2fsprogs")
	e2fsck := harness.Program(t, "e2fsck", "e2fsprogs")
	target := harness.Serve(t, kit.LUN{Size: imageSize})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	dir := t.TempDir()
	image, back := filepath.Join(dir, "image"), filepath.Join(dir, "back")
	harness.Run(ctx, t, mkfs, "-q", "-F", "-d", tree(ctx, t), image, "256M")
	quiet(ctx, t, qemuImg, "convert", "-n", "-f", "raw", "-O", "raw", image, target.URL(0))
	quiet(ctx, t, qemuImg, "compare", "-f", "raw", "-F", "raw", image, target.URL(0))
	quiet(ctx, t, qemuImg, "convert", "-f", "raw", "-O", "raw", target.URL(0), back)
	quiet(ctx, t, qemuImg, "compare", "-f", "raw", "-F", "raw", image, back)
	harness.Run(ctx, t, e2fsck, "-f", "-n", back)
}

// TestImageOver4KnLUN does the same with logical blocks of 4096 bytes, and
// with an image in qcow2, which qemu-img writes out of order.
func TestImageOver4KnLUN(t *testing.T) {
	qemuImg := harness.Program(t, "qemu-img", "qemu-utils")
	requireISCSI(t)
	mkfs := harness.Program(t, "mkfs.ext4", "e2fsprogs")
	target := harness.Serve(t, kit.LUN{Size: imageSize, BlockSize: 4096})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	dir := t.TempDir()
	raw, image := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	harness.Run(ctx, t, mkfs, "-q", "-F", "-d", filepath.Join(tree(ctx, t), "cmd"), raw, "256M")
	harness.Run(ctx, t, qemuImg, "convert", "-f", "raw", "-O", "qcow2", raw, image)
	quiet(ctx, t, qemuImg, "convert", "-n", "-W", "-m", "8", "-f", "qcow2", "-O", "raw", image, target.URL(0))
	quiet(ctx, t, qemuImg, "compare", "-f", "qcow2", "-F", "raw", image, target.URL(0))
}

// TestImageInPieces does the same with a small image over a connection that
// delivers a few hundred bytes at a time.
func TestImageInPieces(t *testing.T) {
	qemuImg := harness.Program(t, "qemu-img", "qemu-utils")
	requireISCSI(t)
	const size = 32 << 20
	target := harness.Serve(t, kit.LUN{Size: size})
	url := target.URLVia(harness.Proxy(t, target.Portal, 1500).Addr(), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	dir := t.TempDir()
	image, back := filepath.Join(dir, "image"), filepath.Join(dir, "back")
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(content[:size/2])
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	quiet(ctx, t, qemuImg, "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", image, url)
	quiet(ctx, t, qemuImg, "convert", "-f", "raw", "-O", "raw", url, back)
	quiet(ctx, t, qemuImg, "compare", "-f", "raw", "-F", "raw", image, back)
}

// quiet runs qemu-img, which says on stderr, and goes on, when it does not get
// what it thinks a disk should give.
func quiet(ctx context.Context, t *testing.T, qemuImg string, args ...string) {
	t.Helper()
	out := harness.Run(ctx, t, qemuImg, args...)
	if out != "" && out != "Images are identical.\n" {
		t.Errorf("qemu-img %s complains:\n%.2000s", args[0], out)
	}
}

// tree is a directory of about 10,000 real files: the sources of Go itself.
func tree(ctx context.Context, t *testing.T) string {
	t.Helper()
	root := harness.Run(ctx, t, harness.Program(t, "go", "golang"), "env", "GOROOT")
	return filepath.Join(strings.TrimSpace(root), "src")
}

// requireISCSI looks for qemu's iSCSI driver, which Debian packages apart.
func requireISCSI(t *testing.T) {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/qemu/block-iscsi.so")
	if found == nil {
		harness.Missing(t, "qemu has no iSCSI driver (Debian package qemu-block-extra)")
	}
}
