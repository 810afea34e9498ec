package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"odx/backstore"
	"odx/internal/kit/logs"
)

// command is a command line, and what it has to say.
type command struct {
	args           string
	stdout, stderr string
	status         int
}

// masked is text without what differs from run to run: ids, times, the directory
// of the test, rates.
func masked(text, dir string) string {
	text = strings.ReplaceAll(text, dir, "DIR")
	for _, m := range []struct{ pattern, with string }{
		{`"id": "[0-9a-f]{32}"`, `"id": "ID"`},
		{`"created": "[^"]+"`, `"created": "TIME"`},
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`, `TIME`},
		{` in [0-9.mµ]*s, [0-9.]+ [KMGT]?i?B/s`, ` in TIME, RATE`},
		{` in [0-9.mµ]*s(\n|, by token)`, " in TIME$1"},
	} {
		text = regexp.MustCompile(m.pattern).ReplaceAllString(text, m.with)
	}
	return text
}

// script runs commands one after the other with one configuration.
func script(t *testing.T, path string, commands []command) {
	t.Helper()
	dir := filepath.Dir(path)
	for _, c := range commands {
		stdout, stderr, status := output(t, append(strings.Fields(c.args), "--config", path)...)
		if got := masked(stdout, dir); got != c.stdout {
			t.Errorf("odx %s says\n%swant\n%s", c.args, got, c.stdout)
		}
		if got := masked(stderr, dir); got != c.stderr {
			t.Errorf("odx %s complains\n%swant\n%s", c.args, got, c.stderr)
		}
		if status != c.status {
			t.Errorf("odx %s: exit status %d, want %d", c.args, status, c.status)
		}
	}
}

// stop ends a server in order.
func (s *server) stop(t *testing.T) {
	t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.end(t); err != nil {
		t.Errorf("%v; standard error:\n%s", err, s.stderr)
	}
}

// createStore creates a store, which is not served, and returns its configuration.
func createStore(t *testing.T) (path string) {
	t.Helper()
	path = writeConfig(t, config)
	startServer(t, odx("serve", "--config", path)).stop(t)
	return path
}

// eachWay runs a test with a server for the store, and without. fill is done to
// the store before.
func eachWay(t *testing.T, fill func(t *testing.T, s *backstore.Store), test func(t *testing.T, path string)) {
	for _, served := range []bool{true, false} {
		t.Run(fmt.Sprintf("served %t", served), func(t *testing.T) {
			t.Parallel()
			path := createStore(t)
			if fill != nil {
				onStore(t, path, fill)
			}
			if served {
				defer startServer(t, odx("serve", "--config", path)).stop(t)
			}
			test(t, path)
		})
	}
}

// onStore opens the store of a configuration, which is not served.
func onStore(t *testing.T, path string, do func(t *testing.T, s *backstore.Store)) {
	t.Helper()
	s, err := backstore.Open(context.Background(), backstore.Options{Dir: filepath.Join(filepath.Dir(path), "data"), Log: logs.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	do(t, s)
}

// block returns content that is in no other block.
func block(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%-64d", i), 64) }

// fillSrc writes blocks to volume src from its start on.
func fillSrc(blocks int) func(t *testing.T, s *backstore.Store) {
	return func(t *testing.T, s *backstore.Store) {
		v, err := s.Volume("src")
		if err != nil {
			t.Fatal(err)
		}
		for i := range blocks {
			if err := v.WriteAt(t.Context(), block(i), int64(i)*4096); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestVolumeCommands(t *testing.T) {
	eachWay(t, nil, func(t *testing.T, path string) {
		script(t, path, []command{
			{args: "volume create third 1GiB", stdout: "volume third: made, 1GiB\n"},
			{args: "volume create third 1GiB", stderr: "odx: volume third: already exists\n", status: 1},
			{args: "volume create no/name 1GiB", stderr: "odx: invalid argument: invalid volume name \"no/name\"; use 1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit\n", status: 1},
			{args: "volume create fourth 1GB", stderr: "odx: invalid size \"1GB\"; use bytes, or a number with KiB, MiB, GiB or TiB, for example 10GiB\n", status: 2},
			{args: "volume resize third 3GiB", stdout: "volume third: has 3GiB now\n"},
			{args: "volume resize third 2GiB", stderr: "odx: invalid argument: volume third has 3221225472 bytes and cannot shrink to 2147483648\n", status: 1},
			{args: "volume resize src 96MiB", stdout: "volume src: has 96MiB now\n",
				stderr: "DIR/odx.yaml:6: targets[0].luns[0].size: LUN 0: write 96MiB here, or leave size out; until then odx serve warns of 64MiB\n"},
			{args: "volume snapshot src monday", stdout: "volume monday: made of src, 96MiB\n"},
			{args: "volume clone monday again", stdout: "volume again: made of monday, 96MiB\n"},
			{args: "volume resize monday 1GiB", stderr: "odx: volume monday: volume is read-only\n", status: 1},
			{args: "volume clone none x", stderr: "odx: volume none: not found\n", status: 1},
			{args: "volume list", stdout: `NAME    SIZE   ACCESS      ORIGIN  MADE                 LUNS
again   96MiB  read-write  monday  TIME  -
dst     64MiB  read-write  -       TIME  iqn.2026-11.example.odx:disks/1
monday  96MiB  read-only   src     TIME  -
src     96MiB  read-write  -       TIME  iqn.2026-11.example.odx:disks/0
third   3GiB   read-write  -       TIME  -
`},
			{args: "volume delete third", stdout: "volume third: deleted\n"},
			{args: "volume delete third", stderr: "odx: volume third: not found\n", status: 1},
			{args: "volume delete src", stderr: "odx: volume src: in use as LUN 0 of iqn.2026-11.example.odx:disks; take that out of the configuration (DIR/odx.yaml, line 6), reload odx serve if it runs, and try again\n", status: 1},
			{args: "volume delete", stderr: "odx: accepts 1 arg(s), received 0; usage: odx volume delete NAME [flags]\n", status: 2},
		})
	})
}

func TestVolumeCommandsJSON(t *testing.T) {
	volume := func(name, size, rest string) string {
		return "{\n  \"name\": \"" + name + "\",\n  \"id\": \"ID\",\n  \"size_bytes\": " + size + ",\n  " + rest + ",\n  \"created\": \"TIME\",\n  \"luns\": []\n}\n"
	}
	eachWay(t, nil, func(t *testing.T, path string) {
		script(t, path, []command{
			{args: "volume create v 1MiB --json", stdout: volume("v", "1048576", `"read_only": false`)},
			{args: "volume resize v 2MiB --json", stdout: volume("v", "2097152", `"read_only": false`)},
			{args: "volume snapshot v s --json", stdout: volume("s", "2097152", "\"read_only\": true,\n  \"origin\": \"v\"")},
			{args: "volume clone s c --json", stdout: volume("c", "2097152", "\"read_only\": false,\n  \"origin\": \"s\"")},
			{args: "volume delete c --json", stdout: "{\n  \"deleted\": \"c\"\n}\n"},
			{args: "store check --json", stdout: "{\n  \"sound\": true,\n  \"findings\": []\n}\n"},
			{args: "store clean --json", stdout: "{\n  \"freed_bytes\": 0,\n  \"physical_bytes\": 0\n}\n"},
			{args: "store scrub --json", stdout: "{\n  \"total_bytes\": 0,\n  \"read_bytes\": 0,\n  \"damaged_extents\": 0,\n  \"damages\": []\n}\n"},
		})
		stdout, _, status := output(t, "volume", "list", "--json", "--config", path)
		var list []struct {
			Name string   `json:"name"`
			LUNs []string `json:"luns"`
		}
		if err := json.Unmarshal([]byte(stdout), &list); err != nil || status != 0 || len(list) != 4 || list[0].Name != "dst" || len(list[0].LUNs) != 1 {
			t.Errorf("exit status %d, %v: %s", status, err, stdout)
		}
	})
}

func TestSoundStore(t *testing.T) {
	eachWay(t, fillSrc(600), func(t *testing.T, path string) {
		script(t, path, []command{
			{args: "store check", stdout: "the store in DIR/data is sound\n"},
			{args: "store scrub", stdout: "2.3 MiB read and verified in TIME, RATE: nothing is damaged\n"},
			{args: "store scrub --mib-per-s 100", stdout: "2.3 MiB read and verified in TIME, RATE: nothing is damaged\n"},
			{args: "store scrub --mib-per-s -1", stderr: "odx: --mib-per-s -1 is negative; use 0 for no limit\n", status: 2},
			{args: "store clean", stdout: "0 B reclaimed, 2.3 MiB on disk now\n"},
		})
	})
}

// TestExclusive: a snapshot shares all that its volume has not written since.
func TestExclusive(t *testing.T) {
	fill := func(t *testing.T, s *backstore.Store) {
		fillSrc(1024)(t, s)
		if _, err := s.SnapshotVolume(t.Context(), "src", "monday"); err != nil {
			t.Fatal(err)
		}
		v, err := s.Volume("src")
		if err == nil {
			err = v.WriteAt(t.Context(), block(5000), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eachWay(t, fill, func(t *testing.T, path string) {
		text, _, status := output(t, "store", "info", "--exclusive", "--config", path)
		for _, line := range []string{
			`(?m)^volume +dst +64MiB, 0 B written, 0 B exclusive$`,
			`(?m)^volume +monday +64MiB, 4.0 MiB written, 4.0 KiB exclusive$`,
			`(?m)^volume +src +64MiB, 4.0 MiB written, 4.0 KiB exclusive$`,
		} {
			if !regexp.MustCompile(line).MatchString(text) || status != 0 {
				t.Errorf("exit status %d, no line %s in\n%s", status, line, text)
			}
		}
		text, _, _ = output(t, "store", "info", "--exclusive", "--json", "--config", path)
		var info struct {
			Exclusive map[string]int64 `json:"exclusive_bytes"`
		}
		if err := json.Unmarshal([]byte(text), &info); err != nil || info.Exclusive["src"] != 4096 || len(info.Exclusive) != 3 {
			t.Errorf("%v: %s", err, text)
		}
	})
}

// TestDamagedStore flips a bit in a segment, and then cuts it short.
func TestDamagedStore(t *testing.T) {
	fill := func(t *testing.T, s *backstore.Store) {
		fillSrc(20)(t, s)
		if _, err := s.SnapshotVolume(t.Context(), "src", "monday"); err != nil {
			t.Fatal(err)
		}
	}
	eachWay(t, fill, func(t *testing.T, path string) {
		file := filepath.Join(filepath.Dir(path), "data", "segments", "00000001.seg")
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{'X'}, 18*4096+100); err != nil { // the 18th block
			t.Fatal(err)
		}
		const complaint = "odx: 1 extent is damaged; rewrite the ranges from a copy, or delete the volumes\n"
		script(t, path, []command{
			{args: "store scrub", stdout: `80 KiB read and verified in TIME, RATE: 1 extent is damaged
extent 18, segment 00000001 block 18 (1 of 4 KiB): block 18: data does not match its CRC-32C
  volume monday: 4096 bytes at 69632
  volume src: 4096 bytes at 69632
`, stderr: complaint, status: 3},
			{args: "store scrub --json", stdout: `{
  "total_bytes": 81920,
  "read_bytes": 81920,
  "damaged_extents": 1,
  "damages": [
    {
      "extent": 18,
      "segment": "00000001",
      "block": 18,
      "blocks": 1,
      "reason": "block 18: data does not match its CRC-32C",
      "uses": [
        {
          "volume": "monday",
          "offset": 69632,
          "length": 4096
        },
        {
          "volume": "src",
          "offset": 69632,
          "length": 4096
        }
      ]
    }
  ]
}
`, stderr: complaint, status: 3},
			{args: "store check", stdout: "the store in DIR/data is sound\n"},
		})
		if err := f.Truncate(20 * 4096); err != nil {
			t.Fatal(err)
		}
		const contradicts = "odx: the store in DIR/data is inconsistent; stop writing to it, and see odx store repair\n"
		script(t, path, []command{
			{args: "store check", stdout: "extent 20 has 1 blocks at segment 00000001 block 20, which has 20\n", stderr: contradicts, status: 3},
			{args: "store check --json", stdout: `{
  "sound": false,
  "findings": [
    "extent 20 has 1 blocks at segment 00000001 block 20, which has 20"
  ]
}
`, stderr: contradicts, status: 3},
		})
	})
}

// TestScrubCanBeStopped: it says how far it came, and the server goes on.
func TestScrubCanBeStopped(t *testing.T) {
	eachWay(t, fillSrc(800), func(t *testing.T, path string) {
		terminal, cmd := onTerminal(t, "store", "scrub", "--mib-per-s", "1", "--config", path)
		// The bar shows that it reads; the rest would take it seconds.
		seen := ""
		for buf := make([]byte, 1000); !strings.Contains(seen, "%"); {
			n, err := terminal.Read(buf)
			if err != nil {
				t.Fatalf("%v after %q", err, seen)
			}
			seen += string(buf[:n])
		}
		cmd.Process.Signal(syscall.SIGINT)
		rest, _ := io.ReadAll(terminal) // ends with EIO, as terminals do
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("ended with %v", err)
		}
		if seen += string(rest); !regexp.MustCompile(`odx: stopped after [0-9.]+ ([KM]iB|B) of 3\.1 MiB; nothing is damaged so far`).MatchString(seen) {
			t.Errorf("said %q", seen)
		}
	})
}

// onTerminal starts odx with its standard error on a terminal, and returns the
// other end of it.
func onTerminal(t *testing.T, args ...string) (*os.File, *exec.Cmd) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd := odx(args...)
	cmd.Stderr = slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return master, cmd
}
