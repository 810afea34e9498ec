package disks

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"odx/internal/kit"
)

const imageSize = 512 << 20

//go:embed image.sh
var imageScript string

// building is held by who makes the image, which the others then find.
var building sync.Mutex

// Image makes the image, or finds the one made before, and returns its path. No caller
// may change it.
func Image(ctx context.Context) (string, error) {
	building.Lock()
	defer building.Unlock()
	suite, mirror := kit.Debian(ctx)
	sum := sha256.Sum256([]byte(imageScript + suite + mirror))
	dir, err := kit.CacheDir("disk-" + hex.EncodeToString(sum[:8]))
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "disk.raw")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	work, err := os.MkdirTemp(dir, "work")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	cmd := exec.CommandContext(ctx, "fakeroot", "sh", "-c", imageScript)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "SUITE="+suite, "MIRROR="+mirror, fmt.Sprintf("SIZE_MIB=%d", imageSize>>20),
		// Debian keeps these programs out of a plain user's.
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a root file system with debootstrap %s %s: %w\n%s", suite, mirror, err, out)
	}
	return path, os.Rename(filepath.Join(work, "disk.raw"), path)
}
