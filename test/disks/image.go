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
	"strings"
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
	suite, mirror := debian(ctx)
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

// debian returns the suite that this machine runs, and the mirror that apt gets it
// from; on other machines a stable one, and none: debootstrap knows one for everyone.
func debian(ctx context.Context) (suite, mirror string) {
	suite = "bookworm"
	if release, err := os.ReadFile("/etc/os-release"); err == nil && strings.Contains(string(release), "\nID=debian\n") {
		for line := range strings.Lines(string(release)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
				suite = name
			}
		}
	}
	// Without apt there is no list to look at.
	sources, _ := exec.CommandContext(ctx, "apt-get", "indextargets", "--format",
		"$(RELEASE) $(COMPONENT) $(SITE) $(ORIGIN)", "Identifier: Packages").Output()
	for line := range strings.Lines(string(sources)) {
		f := strings.Fields(line)
		// The origin is not known before the lists are there.
		if len(f) >= 3 && f[0] == suite && f[1] == "main" && (len(f) == 3 || f[3] == "Debian") {
			return suite, f[2]
		}
	}
	return suite, ""
}
