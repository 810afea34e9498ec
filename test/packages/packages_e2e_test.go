//go:build e2e

package packages

import (
	"context"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/machine"
)

//go:embed journey.sh
var journeyScript string

// made are the packages of this machine's architecture, made once a process.
var made = sync.OnceValues(func() (dir string, err error) {
	root, err := kit.ModuleRoot()
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "packages"); err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(root, "scripts", "package"), "-o", dir, "amd64")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", &buildError{err, string(out)}
	}
	return dir, nil
})

type buildError struct {
	err error
	out string
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.out }

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, err := made(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

// packageOf returns the one package whose name has a suffix.
func packageOf(t *testing.T, suffix string) string {
	t.Helper()
	dir, err := made()
	harness.Must(t, err)
	found, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages %q, %v", found, err)
	}
	return found[0]
}

// TestPackages_Checkers: lintian and rpmlint find no error, and no warning that is not
// explained in packaging.
func TestPackages_Checkers(t *testing.T) {
	t.Parallel() // the machine uses little more than one processor
	root, err := kit.ModuleRoot()
	harness.Must(t, err)
	t.Run("lintian", func(t *testing.T) {
		out := harness.Run(t.Context(), t, harness.Program(t, "lintian", "lintian"), "--no-cfg", "--allow-root", "--fail-on", "error", packageOf(t, ".deb"))
		t.Log(out)
	})
	t.Run("rpmlint", func(t *testing.T) {
		out := harness.Run(t.Context(), t, harness.Program(t, "rpmlint", "rpmlint"), "-r", filepath.Join(root, "packaging/rpm/rpmlintrc"), packageOf(t, ".rpm"))
		if !strings.Contains(out, " 0 errors") {
			t.Error(out)
		}
	})
	t.Run("mandoc", func(t *testing.T) {
		dir := t.TempDir()
		harness.Run(t.Context(), t, "dpkg-deb", "--extract", packageOf(t, ".deb"), dir)
		harness.Run(t.Context(), t, "gunzip", "-r", filepath.Join(dir, "usr/share/man"))
		pages, err := filepath.Glob(filepath.Join(dir, "usr/share/man/man?/*"))
		if err != nil || len(pages) < 40 {
			t.Fatalf("pages %q, %v", pages, err)
		}
		harness.Run(t.Context(), t, harness.Program(t, "mandoc", "mandoc"), append([]string{"-T", "lint", "-W", "warning"}, pages...)...)
	})
}

// TestPackages_Confinement: systemd's own measure of what a service may do.
func TestPackages_Confinement(t *testing.T) {
	root, err := kit.ModuleRoot()
	harness.Must(t, err)
	out := harness.Run(t.Context(), t, harness.Program(t, "systemd-analyze", "systemd"), "security", "--offline=true", filepath.Join(root, "packaging/odx.service"))
	m := regexp.MustCompile(`exposure level for odx.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatal(out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level >= 3 {
		t.Errorf("exposure level %s, want below 3.0", m[1])
	}
}

// TestPackages_Journey is an administrator's: see journey.sh.
func TestPackages_Journey(t *testing.T) {
	t.Parallel() // the machine uses little more than one processor
	harness.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	harness.Program(t, "mmdebstrap", "mmdebstrap")
	building, cancelBuild := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancelBuild()
	image, err := machine.Build(building)
	if err != nil {
		harness.Missing(t, err.Error())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	harness.Must(t, os.WriteFile(filepath.Join(dir, "script"), []byte(journeyScript), 0o755))
	deb := packageOf(t, ".deb")
	harness.Run(ctx, t, "cp", deb, filepath.Join(dir, "old.deb"))
	laterVersion(ctx, t, deb, filepath.Join(dir, "new.deb"))
	out, console, err := image.Run(ctx, dir)
	t.Log(out)
	if err != nil || !strings.Contains(out, "\nstatus 0\n") {
		t.Errorf("%v; the console:\n%s", err, console)
	}
}

// laterVersion makes of a Debian package one with a later version.
func laterVersion(ctx context.Context, t *testing.T, deb, later string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	harness.Run(ctx, t, "dpkg-deb", "--raw-extract", deb, dir)
	control := filepath.Join(dir, "DEBIAN", "control")
	text, err := os.ReadFile(control)
	harness.Must(t, err)
	text = regexp.MustCompile(`(?m)^Version: .*`).ReplaceAll(text, []byte("Version: 99.0-1"))
	harness.Must(t, os.WriteFile(control, text, 0o644))
	harness.Run(ctx, t, "dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", dir, later)
}
