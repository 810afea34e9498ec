package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/admin"
	v1 "odx/api/v1"
)

func TestVHDCommands(t *testing.T) {
	eachWay(t, fillSrc(16), func(t *testing.T, path string) {
		dir := t.TempDir()
		script(t, path, []command{
			{args: "vhd create images/fixed.vhd 10GiB --fixed", stdout: "images/fixed.vhd: 10 GiB; 0 B mapped, 0 B moved, in TIME\n"},
			{args: "vhd create images/fixed.vhd 10GiB", stderr: "odx: file images/fixed.vhd: already exists; --overwrite replaces it\n", status: 1},
			{args: "vhd create a.vhdx 10GB", stderr: "odx: invalid size \"10GB\"; use bytes, or a number with KiB, MiB, GiB or TiB, for example 10GiB\n", status: 2},
			{args: "vhd check images/fixed.vhd", stdout: "images/fixed.vhd is sound\n"},
			{args: "vhd check none.vhd", stderr: "odx: file none.vhd: not found\n", status: 1},
			{args: "file rm images/fixed.vhd", stdout: "deleted: images/fixed.vhd\n"},
		})
		run := func(args ...string) string {
			t.Helper()
			stdout, stderr, status := output(t, append(args, "--config", path)...)
			if status != 0 {
				t.Fatalf("%v: %d\n%s%s", args, status, stdout, stderr)
			}
			return stdout
		}
		if said := run("vhd", "from-volume", "src", "images/src.vhdx", "--block-size", "2MiB"); !strings.Contains(said, ", 0 B moved, ") {
			t.Error(said)
		}
		run("vhd", "snapshot", "images/src.vhdx", "images/child.vhdx")
		var d v1.Disk
		describe := func(name string, flags ...string) {
			t.Helper()
			d = v1.Disk{}
			if err := json.Unmarshal([]byte(run(append([]string{"vhd", "info", name, "--json"}, flags...)...)), &d); err != nil {
				t.Fatal(err)
			}
		}
		describe("images/child.vhdx")
		if d.Kind != "differencing" || len(d.Parents) != 1 || d.Parents[0] != "images/src.vhdx" || d.BlockBytes != 2<<20 {
			t.Errorf("%+v", d)
		}
		run("vhd", "merge", "images/child.vhdx")
		run("vhd", "compact", "images/src.vhdx")
		run("vhd", "defrag", "images/src.vhdx")
		run("vhd", "resize", "images/src.vhdx", "80MiB")
		run("vhd", "convert", "images/src.vhdx", "images/src.vhd")
		run("vhd", "to-volume", "images/src.vhd", "back")

		// Out as raw and as VHD, and in again.
		raw, local := filepath.Join(dir, "out.raw"), filepath.Join(dir, "out.vhd")
		run("vhd", "export", "images/src.vhd", local)
		run("vhd", "export", "images/src.vhd", raw)
		describe(local, "--local")
		if d.SizeBytes != 80<<20 || d.Format != "vhd" {
			t.Errorf("%+v", d)
		}
		if said := run("vhd", "check", local, "--local"); !strings.HasSuffix(said, " is sound\n") {
			t.Error(said)
		}
		run("vhd", "import", local, "again.vhdx", "--fixed")
		run("vhd", "import", local, "again.vhd")
		again := filepath.Join(dir, "again.raw")
		run("vhd", "export", "again.vhdx", again)
		if one, two := mustRead(t, raw), mustRead(t, again); !bytes.Equal(one, two) || !bytes.Contains(one, block(3)) {
			t.Error("what came back is not what was imported")
		}
		// To standard output, where no file is made.
		if stdout, stderr, status := output(t, "vhd", "export", "again.vhd", "-", "--config", path); status != 0 || stdout != string(mustRead(t, raw)) || !strings.Contains(stderr, "read and written") {
			t.Errorf("export to standard output: %d, %d bytes\n%s", status, len(stdout), stderr)
		}
		if _, err := os.Stat("-"); err == nil {
			t.Error("a file - was made")
		}
		// A file that is there is replaced only where that is said.
		for _, args := range [][]string{{"export", "again.vhd", again}, {"import", local, "again.vhd"}, {"to-volume", "again.vhd", "back"}} {
			args = append([]string{"vhd"}, args...)
			if _, stderr, status := output(t, append(args, "--config", path)...); status != 1 || !strings.HasSuffix(stderr, "; --overwrite replaces it\n") {
				t.Errorf("%v: %d, %s", args, status, stderr)
			}
			run(append(args, "--overwrite")...)
		}
		// Names like those of files that are not whole are anyone's.
		run("file", "cp", "again.vhd", "again.part.vhd")
		run("vhd", "import", local, "again.vhd", "--overwrite")
		describe("again.part.vhd")
		// Disks in other formats are refused without --raw.
		foreign := filepath.Join(dir, "other.img")
		if err := os.WriteFile(foreign, append([]byte("QFI\xfb"), make([]byte, 1<<20-4)...), 0o600); err != nil {
			t.Fatal(err)
		}
		foreignVHD := filepath.Join(dir, "other.vhd")
		if err := os.Link(foreign, foreignVHD); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"vhd", "import", foreign, "other.vhdx"}, {"vhd", "import", foreignVHD, "other2.vhdx"}, {"copy", foreign, "dst"}, {"vhd", "create", "x.qcow2", "1MiB"}, {"vhd", "export", "again.vhd", filepath.Join(dir, "x.vmdk")},
		} {
			_, stderr, status := output(t, append(args, "--config", path)...)
			if status != 1 || !strings.HasSuffix(stderr, "; use --raw for raw bytes\n") || strings.Contains(stderr, foreign) && !strings.Contains(stderr, "qemu-img convert -O vhdx "+foreign) {
				t.Errorf("%v: %d, %s", args, status, stderr)
			}
			run(append(args, "--raw")...)
		}
		if err := os.WriteFile(local, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, status := output(t, "vhd", "import", local, "junk.vhd", "--config", path); status != 1 || !strings.Contains(stderr, "not a valid virtual disk") {
			t.Errorf("import of junk: %d, %s", status, stderr)
		}
		for _, f := range strings.Fields(run("file", "list")) {
			if strings.HasPrefix(f, ".") {
				t.Errorf("left is %s", f)
			}
		}
	})
}

// TestVHDCommands_Chain: no command deletes or replaces the parent of a disk unless that is
// said, and one that separates them warns.
func TestVHDCommands_Chain(t *testing.T) {
	eachWay(t, nil, func(t *testing.T, path string) {
		const isParent = " is the parent of differencing disks: images/child.vhdx; merge them, convert them to disks without parents, or delete them first"
		script(t, path, []command{
			{args: "vhd create images/src.vhdx 8MiB", stdout: "images/src.vhdx: 4.0 MiB; 0 B mapped, 0 B moved, in TIME\n"},
			{args: "vhd snapshot images/src.vhdx images/child.vhdx", stdout: "images/child.vhdx: 4.0 MiB; 0 B mapped, 0 B moved, in TIME\n"},
			{args: "vhd snapshot images/child.vhdx images/last.vhdx", stdout: "images/last.vhdx: 4.0 MiB; 0 B mapped, 0 B moved, in TIME\n"},
			{args: "file cp images/src.vhdx images/copy.vhdx", stdout: "file images/src.vhdx: copied to images/copy.vhdx\n"},
			{args: "file rm images/src.vhdx", stderr: "odx: file images/src.vhdx" + isParent + "; --force deletes it nevertheless\n", status: 1},
			{args: "file mv images/copy.vhdx images/src.vhdx", stderr: "odx: file images/src.vhdx" + isParent + "\n", status: 1},
			{args: "vhd resize images/src.vhdx 1GiB", stderr: "odx: file images/src.vhdx" + isParent + "\n", status: 1},
			{args: "file rm --force images/src.vhdx", stdout: "deleted: images/src.vhdx\n"},
			{args: "file mv images/copy.vhdx images/src.vhdx", stdout: "file images/copy.vhdx: renamed to images/src.vhdx\n"},
			{args: "file cp images/src.vhdx chain/src.vhdx", stdout: "file images/src.vhdx: copied to chain/src.vhdx\n"},
			{args: "file cp images/child.vhdx chain/child.vhdx", stdout: "file images/child.vhdx: copied to chain/child.vhdx\n"},
			{args: "file cp images/last.vhdx chain/last.vhdx", stdout: "file images/last.vhdx: copied to chain/last.vhdx\n"},
			{args: "file mv chain/src.vhdx chain/SRC.vhdx", stdout: "file chain/src.vhdx: renamed to chain/SRC.vhdx\n"},
			{args: "file mv chain/SRC.vhdx src.vhdx", stdout: "file chain/SRC.vhdx: renamed to src.vhdx\n",
				stderr: "warning: chain/child.vhdx finds its parent only as chain/SRC.vhdx\n"},
			{args: "file mv src.vhdx chain/src.vhdx", stdout: "file src.vhdx: renamed to chain/src.vhdx\n"},
			{args: "file mv chain/last.vhdx last.vhdx", stdout: "file chain/last.vhdx: renamed to last.vhdx\n",
				stderr: "warning: file last.vhdx: its parent ./child.vhdx is not in the store; put it there: not found\n"},
			{args: "file mv last.vhdx chain/last.vhdx", stdout: "file last.vhdx: renamed to chain/last.vhdx\n"},
			{args: "file mv chain/last.vhdx chain/last.vhd", stdout: "file chain/last.vhdx: renamed to chain/last.vhd\n",
				stderr: "warning: chain/last.vhd: vhd: not a valid virtual disk: the footer at the end does not begin with \"conectix\"; its copy at the start does not begin with \"conectix\"\n"},
			{args: "file mv chain/last.vhd chain/last.vhdx", stdout: "file chain/last.vhd: renamed to chain/last.vhdx\n"},
			{args: "file rm chain/src.vhdx chain/child.vhdx chain/last.vhdx", stdout: "deleted: chain/src.vhdx chain/child.vhdx chain/last.vhdx\n"},
		})
	})
}

// TestPrintDiskResult: the time is that of the command, which copies a disk before the
// operation on it begins.
func TestPrintDiskResult(t *testing.T) {
	var out bytes.Buffer
	r := admin.DiskResult{Name: "d.vhdx", FileBytes: 4 << 20, FileBytesBefore: 8 << 20, MappedBytes: 1 << 20, Duration: time.Millisecond}
	if err := printDiskResult(&adminOptions{}, r, streams{out: &out, began: time.Now().Add(-90 * time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "d.vhdx: 4.0 MiB, before 8.0 MiB; 1.0 MiB mapped, 0 B moved, in 1h30m") {
		t.Errorf("%q", got)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
