// Package harness is what the tests with real programs have in common: a
// target that lives as long as a test, clients that must be installed (loudly
// skipped where they are not, a failure in CI), and tables that are kept.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/proxy"
	"odx/internal/kit/tokenclient"
)

// TargetEnv names an environment variable that, when it is "tgtd", makes
// Serve start that peer instead of odx: a way to see whether a failure is a
// fault of the test.
const TargetEnv = "ODX_TEST_TARGET"

// ReportEnv names an environment variable with a directory in which Report
// leaves its tables.
const ReportEnv = "ODX_TEST_REPORT"

// Serve starts odx with the given LUNs for one test. When the test ends the
// target must still be running and must stop cleanly; its log is printed when
// the test failed.
func Serve(t testing.TB, luns ...kit.LUN) *kit.Target {
	t.Helper()
	start := kit.StartODX
	if os.Getenv(TargetEnv) == "tgtd" {
		Program(t, "tgtd", "tgt")
		start = kit.StartTGTD
	}
	target, err := start(context.Background(), t.TempDir(), luns)
	return stopped(t, target, err)
}

// ServeWith is Serve for odx alone, with more in its configuration.
func ServeWith(t testing.TB, more kit.Settings, luns ...kit.LUN) *kit.Target {
	t.Helper()
	RequireODX(t)
	target, err := kit.StartODXWith(context.Background(), t.TempDir(), luns, more)
	return stopped(t, target, err)
}

// stopped has a target that was started, or failed to, stop with the test.
func stopped(t testing.TB, target *kit.Target, err error) *kit.Target {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Stop(); err != nil {
			t.Errorf("stop the target: %v", err)
		}
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", target.Kind, target.LogTail(200))
		}
	})
	return target
}

// Proxy forwards connections to a portal for one test, in pieces of 1 to piece
// bytes; 0: as they come.
func Proxy(t testing.TB, portal string, piece int) *proxy.Proxy {
	t.Helper()
	p, err := proxy.Start(portal, piece)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// RequireODX skips a test that a peer cannot pass, when Serve starts a peer.
func RequireODX(t testing.TB) {
	t.Helper()
	if kind := os.Getenv(TargetEnv); kind != "" && kind != "odx" {
		t.Skipf("%s=%s: this test is about odx alone", TargetEnv, kind)
	}
}

// Program returns the path of a program of the Debian package pkg. Where it
// is missing the test is skipped, and in CI fails: see Missing.
func Program(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		// Debian keeps these out of a plain user's PATH.
		path, err = exec.LookPath(filepath.Join("/usr/sbin", name))
	}
	if err != nil {
		Missing(t, fmt.Sprintf("%s is not installed (Debian package %s)", name, pkg))
	}
	return path
}

// Missing ends a test because the machine lacks something it needs: CI must
// have everything, so there it is a failure.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("NOT TESTED: %s; in CI that is a failure", what)
	}
	fmt.Fprintf(os.Stderr, "NOT TESTED: %s: %s\n", t.Name(), what)
	t.Skipf("NOT TESTED: %s", what)
}

// Logged requires that a target says each of texts in its log, soon.
func Logged(t testing.TB, target *kit.Target, texts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, text := range texts {
		if target.AwaitLog(ctx, func(log string) bool { return strings.Contains(log, text) }) != nil {
			t.Errorf("the log of the target lacks %q", text)
		}
	}
}

// Report logs a table that is of interest even if the test passes, and leaves it in the
// directory that ReportEnv names, if any.
func Report(t testing.TB, name, table string) {
	t.Helper()
	t.Logf("%s\n%s", name, table)
	if dir := os.Getenv(ReportEnv); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(table), 0o644); err != nil {
			t.Errorf("report: %v", err)
		}
	}
}

// Run runs a client to its end and returns what it printed, both outputs
// together; that it fails, or does not end before ctx, fails the test.
func Run(ctx context.Context, t testing.TB, path string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%v)", ctx.Err(), err)
		}
		t.Fatalf("%s %q: %v\n%s", filepath.Base(path), args, err, out.String())
	}
	return out.String()
}

// Must ends a test on an error.
func Must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Client starts the libiscsi client for one test.
func Client(t testing.TB) *tokenclient.Client {
	t.Helper()
	Program(t, "cc", "gcc")
	if _, err := os.Stat("/usr/include/iscsi/iscsi.h"); err != nil {
		Missing(t, "libiscsi's headers are not installed (Debian package libiscsi-dev)")
	}
	c, err := tokenclient.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("end the libiscsi client: %v", err)
		}
	})
	return c
}

// Open logs in to a LUN of the target for one test.
func Open(t testing.TB, c *tokenclient.Client, url string) *tokenclient.Session {
	t.Helper()
	s, err := c.Open(url, tokenclient.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
