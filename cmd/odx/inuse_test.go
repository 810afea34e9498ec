package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"odx/initiator"
)

// TestCopyCommand_LUNInUse: what initiators are logged in to is overwritten only on
// request, whatever it is called.
func TestCopyCommand_LUNInUse(t *testing.T) {
	const text = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 16MiB}
      - {lun: 1, view: halves}
  - name: iqn.2026-11.example.odx:other
    luns:
      - {lun: 5, volume: alone, size: 16MiB}
      - {lun: 6, file: disk.raw, size: 16MiB}
views:
  - {name: halves, mirror: {legs: [left, right]}, size: 16MiB}
`
	path := writeConfig(t, text)
	s := startServer(t, odx("serve", "--config", path))
	const disks, other = "iqn.2026-11.example.odx:disks", "iqn.2026-11.example.odx:other"
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, block(1), 0o600); err != nil {
		t.Fatal(err)
	}
	url := func(target, lun string) string { return "iscsi://" + s.portal + "/" + target + "/" + lun }
	host, port, err := net.SplitHostPort(s.portal)
	if err != nil || host != "127.0.0.1" {
		t.Fatal(s.portal, err)
	}
	copyTo := func(dst string, flags ...string) (stderr string, status int) {
		_, stderr, status = output(t, append([]string{"copy", raw, dst, "--config", path}, flags...)...)
		return stderr, status
	}
	for _, dst := range []string{"src", url(disks, "0"), url(other, "5"), "alone", url(disks, "1")} {
		if stderr, status := copyTo(dst); status != 0 {
			t.Errorf("no initiator is logged in, but: copy to %s: %s", dst, stderr)
		}
	}

	const name = "iqn.2026-11.example.odx:host7"
	d, err := initiator.Open(t.Context(), initiator.Options{URL: initiator.URL{Address: s.portal, Target: disks}, InitiatorName: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	for _, dst := range []string{"src", url(disks, "0"), url(disks, "1"), "iscsi://localhost:" + port + "/" + disks + "/0"} {
		stderr, status := copyTo(dst)
		if status != 1 || !strings.Contains(stderr, name+" from 127.0.0.1:") || !strings.Contains(stderr, " of "+disks+"; log out there first, or use --force") {
			t.Errorf("copy to %s, which is open: exit status %d\n%s", dst, status, stderr)
		}
	}
	for _, dst := range []string{"alone", url(other, "5"), "file:new", filepath.Join(t.TempDir(), "new")} {
		if stderr, status := copyTo(dst); status != 0 {
			t.Errorf("copy to %s, which is not open: %s", dst, stderr)
		}
	}
	for _, dst := range []string{"src", url(disks, "0")} {
		if stderr, status := copyTo(dst, "--force"); status != 0 {
			t.Errorf("copy to %s with --force: %s", dst, stderr)
		}
	}
	token, stderr, _ := output(t, "token", "create", "alone", "--config", path)
	if _, stderr, status := output(t, "token", "write", strings.TrimSpace(token), "src", "--config", path); status != 1 || !strings.Contains(stderr, "src: initiators have it open") {
		t.Errorf("write with a token: exit status %d\n%s", status, stderr)
	}
	if _, stderr, status := output(t, "token", "write", strings.TrimSpace(token), "src", "--force", "--config", path); status != 0 {
		t.Errorf("write with a token and --force: %s", stderr)
	}
	for _, flag := range []string{"", "--force"} {
		args := append([]string{"vhd", "to-volume", "new", "src", "--overwrite", "--config", path}, strings.Fields(flag)...)
		if _, stderr, status := output(t, args...); (status == 0) != (flag != "") || flag == "" && !strings.Contains(stderr, "src: initiators have it open") {
			t.Errorf("%v: exit status %d\n%s", args, status, stderr)
		}
	}
	if stdout, stderr, status := output(t, "status", "--config", path); status != 0 || !strings.Contains(stdout, name) || !strings.Contains(stdout, "  "+disks+" LUN 0,1, from 127.0.0.1:") {
		t.Errorf("status: %s%s", stdout, stderr)
	}
	if stderr != "" && !strings.HasPrefix(stderr, "token ") {
		t.Error(stderr)
	}
}
