package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	v1 "odx/api/v1"
	"odx/initiator"
)

const disksTarget = "iqn.2026-11.example.odx:disks"

// openSession logs in to a LUN of a server.
func openSession(t *testing.T, portal string, lun uint16) *initiator.Disk {
	t.Helper()
	d, err := initiator.Open(t.Context(), initiator.Options{
		InitiatorName: "iqn.2026-11.example.host:a", URL: initiator.URL{Address: portal, Target: disksTarget, LUN: lun},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// With a server, the commands change the file and the server together, while an initiator
// uses another LUN.
func TestEdit_Server(t *testing.T) {
	path := writeConfig(t, "# a comment\n"+config)
	s := startServer(t, odx("serve", "--config", path))
	run := func(want int, args ...string) string {
		t.Helper()
		stdout, stderr, status := output(t, append(args, "--config", path)...)
		if status != want {
			t.Errorf("odx %v: exit status %d: %s%s", args, status, stdout, stderr)
		}
		return stdout + stderr
	}
	d := openSession(t, s.portal, 0)
	defer d.Close()
	use := func() {
		t.Helper()
		p := make([]byte, 4096)
		if err := d.WriteAt(t.Context(), p, 0); err != nil {
			t.Error(err)
		}
	}
	use()

	if got, want := run(0, "lun", "add", disksTarget, "new", "--size", "64MiB"), "LUN 2 of target "+disksTarget+": added, on volume new\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	second := openSession(t, s.portal, 2)
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	use()
	run(0, "lun", "remove", disksTarget, "2")
	if got := run(1, "lun", "remove", disksTarget, "2"); got != "odx: LUN 2 of target "+disksTarget+" does not exist\n" {
		t.Errorf("a LUN that is not there: %s", got)
	}
	if got := run(1, "lun", "add", disksTarget, "src", "--lun", "3"); !strings.Contains(got, "LUN 3: volume src already is LUN 0 of this target") {
		t.Errorf("a LUN that cannot be: %s", got)
	}
	run(0, "volume", "snapshot", "src", "monday")
	run(0, "lun", "add", disksTarget, "monday", "--lun", "4")
	if got := run(0, "lun", "list"); !regexp.MustCompile(`4 +volume monday +64MiB .*read-only`).MatchString(got) || !regexp.MustCompile(`0 +volume src .*read-write`).MatchString(got) {
		t.Errorf("how LUNs are served:\n%s", got)
	}
	run(0, "lun", "remove", disksTarget, "4")
	run(0, "target", "create", disksTarget+"2", "new", "--size", "64MiB")
	run(0, "target", "delete", disksTarget+"2")
	use()
	var targets []v1.Target
	if err := json.Unmarshal([]byte(run(0, "target", "list", "--json")), &targets); err != nil || len(targets) != 1 || len(targets[0].LUNs) != 2 {
		t.Errorf("%v: %+v", err, targets)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "# a comment\n"+config {
		t.Errorf("the file is %q (%v)", text, err)
	}
	s.stop(t)
}

// Commands that come while the server hands over change the running server, not the file
// alone.
func TestEdit_Handover(t *testing.T) {
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path))
	handing := make(chan string, 1)
	go func() {
		var failed string
		for range 3 {
			cmd := odx("handover", "--config", path)
			if out, err := cmd.CombinedOutput(); err != nil {
				failed += fmt.Sprintf("%v: %s", err, out)
			}
		}
		handing <- failed
	}()
	edits := 0
	for over := false; !over; edits++ {
		select {
		case failed := <-handing:
			if failed != "" {
				t.Error(failed)
			}
			over = true
		default:
		}
		for _, args := range [][]string{{"lun", "add", disksTarget, "new", "--size", "64MiB", "--lun", "7"}, {"lun", "remove", disksTarget, "7"}} {
			stdout, stderr, status := output(t, append(args, "--config", path)...)
			if status != 0 || strings.Contains(stdout, "only") {
				t.Fatalf("odx %v: exit status %d: %s%s", args, status, stdout, stderr)
			}
		}
	}
	if edits < 2 {
		t.Errorf("%d edits during 3 handovers", edits)
	}
	stdout, stderr, status := output(t, "status", "--json", "--config", path)
	var st v1.Status
	if err := json.Unmarshal([]byte(stdout), &st); err != nil || len(st.LUNs) != 2 || status != 0 {
		t.Fatalf("exit status %d, %v: %s%s", status, err, stdout, stderr)
	}
	if err := syscall.Kill(st.PID, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// odx config diff says what a reload would do, and odx reload does it.
func TestReload(t *testing.T) {
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path))
	check := func(want string, status int, args ...string) {
		t.Helper()
		stdout, stderr, got := output(t, append(args, "--config", path)...)
		if matched, err := regexp.MatchString("^"+want+"$", stdout+stderr); err != nil || !matched || got != status {
			t.Errorf("odx %v: exit status %d\n%s%swant\n%s", args, got, stdout, stderr, want)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check("", 0, "config", "diff")
	check("nothing has changed\n", 0, "reload")

	more := strings.Replace(config, "level: debug", "level: info", 1)
	write(more)
	const changed = `log\.level: debug becomes info \(at once\)` + "\n"
	check(changed, 6, "config", "diff")
	check(changed+`applied in \S+`+"\n", 0, "reload")
	check("", 0, "config", "diff")

	shown, _, _ := output(t, "config", "show", "--running", "--config", path)
	if file, _, _ := output(t, "config", "show", "--config", path); shown != file || !strings.Contains(shown, "level: info\n") {
		t.Errorf("the server has\n%s\nthe file is\n%s", shown, file)
	}

	other := writeConfig(t, strings.Replace(more, "data_dir: data", "data_dir: "+filepath.Join(filepath.Dir(path), "other"), 1))
	check(`data_dir: \S+/data becomes \S+/other \(needs a restart: the open store .*\)`+"\n", 7, "config", "diff", other)
	write(strings.Replace(more, "read_only: true", "block_size: 4096", 1))
	check(`odx: configuration not changed, [^\n]*\n.*luns\[1\]\.block_size: for a medium that stays a LUN; .*`+"\n", 1, "reload")
	write("tragets: 5\n" + more)
	check(regexp.QuoteMeta(path)+`:1: unknown key "tragets"; .*`+"\n", 1, "config", "diff")
	write(more)
	check("nothing has changed\n", 0, "reload")
	s.stop(t)
}

// The sessions of a server are listed, and end.
func TestSession(t *testing.T) {
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path))
	d := openSession(t, s.portal, 0)
	defer d.Close()
	stdout, stderr, status := output(t, "session", "list", "--config", path)
	if !regexp.MustCompile(`(?m)^[0-9]+ +iqn\.2026-11\.example\.host:a +127\.0\.0\.1:[0-9]+ +`+regexp.QuoteMeta(disksTarget)+` +2 +- .* 0 `).MatchString(stdout) || status != 0 {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
	long, _, _ := output(t, "session", "list", "--long", "--config", path)
	for _, line := range []string{
		`initiator +iqn\.2026-11\.example\.host:a`, `portal +` + regexp.QuoteMeta(s.portal) + `, group 1`, `LUN +0 volume src`, `LUN +1 volume dst, read-only`,
		`key +HeaderDigest=None`, `key +MaxBurstLength=[0-9]+`, `commands +0 outstanding`, `total +[0-9]+ commands, .* errors, latency .*`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(long) {
			t.Errorf("no line %s in\n%s", line, long)
		}
	}
	var list []v1.Session
	stdout, _, _ = output(t, "session", "list", "--json", "--config", path)
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) != 1 || list[0].TSIH == 0 {
		t.Fatalf("%v: %s", err, stdout)
	}
	top, _, status := output(t, "lun", "top", "--config", path)
	if !strings.Contains(top, disksTarget+"/0") || !strings.Contains(top, disksTarget+"/1") || status != 0 {
		t.Errorf("exit status %d: %s", status, top)
	}
	tsih := fmt.Sprint(list[0].TSIH)
	if stdout, stderr, status := output(t, "session", "end", tsih, "--config", path); stdout != "session "+tsih+": asked to log out\n" || status != 0 {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
	if _, stderr, status := output(t, "session", "end", "1", "--config", path); status != 1 || !strings.Contains(stderr, "no such session") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}
