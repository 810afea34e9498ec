package kit

import (
	"context"
	"os"
	"os/exec"
	"strings"
)

// Debian returns the suite that this machine runs, and the mirror that apt gets it
// from; on other machines a stable one, and none: debootstrap knows one for everyone.
func Debian(ctx context.Context) (suite, mirror string) {
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
