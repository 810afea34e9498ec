package transfer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// inDirectory returns the names and contents of the files in a directory.
func inDirectory(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		p, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(p)
	}
	return all
}

func wantDirectory(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := inDirectory(t, dir)
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	for name, contents := range want {
		if got[name] != contents {
			t.Errorf("%s has %.20q, want %.20q", name, got[name], contents)
		}
	}
}

// failing is a source whose second half cannot be read.
type failing struct{ *memory }

var errUnreadable = errors.New("unreadable")

func (f failing) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off >= f.Size()/2 {
		return errUnreadable
	}
	return f.memory.ReadAt(ctx, p, off)
}

// TestCreateFile: a file is named when the copy is complete, and not before. An
// existing file is replaced only with Overwrite.
func TestCreateFile(t *testing.T) {
	src := newMemory(4<<20, 1).fill()
	whole := string(src.data)
	for name, tt := range map[string]struct {
		old      string
		existing Existing
		src      Disk
		want     string
		err      error
	}{
		"new":                       {"", Refuse, src, whole, nil},
		"new, overwritten":          {"", Overwrite, src, whole, nil},
		"there":                     {"old", Refuse, src, "old", ErrExists},
		"existing, overwritten":     {"old", Overwrite, src, whole, nil},
		"broken":                    {"", Refuse, failing{src}, "", errUnreadable},
		"broken, existing":          {"old", Overwrite, failing{src}, "old", errUnreadable},
		"broken, existing, refused": {"old", Refuse, failing{src}, "old", ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.vhdx")
			want := map[string]string{}
			if tt.old != "" {
				if err := os.WriteFile(path, []byte(tt.old), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			if tt.want != "" {
				want["disk.vhdx"] = tt.want
			}
			dst, err := CreateFile(path, src.Size(), tt.existing)
			if err == nil {
				if tt.old != "" {
					wantDirectory(t, dir, map[string]string{"disk.vhdx": tt.old})
				}
				_, err = Copy(t.Context(), dst, tt.src, Options{})
				err = errors.Join(err, dst.Close())
			}
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Errorf("%v, want %v", err, tt.err)
			}
			wantDirectory(t, dir, want)
			if tt.old != "" {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
					t.Errorf("the mode is %v, %v", info.Mode(), err)
				}
			}
		})
	}
}

// TestCreateFile_Link: the target of a symbolic link is replaced, not the link.
func TestCreateFile_Link(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	target, link := filepath.Join(other, "target"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(target, []byte("old"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	dst, err := CreateFile(link, 3, Overwrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dst.WriteAt(t.Context(), []byte("new"), 0), dst.(Finisher).Finish(t.Context()), dst.Close()); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != target {
		t.Errorf("the target of the link is %s, %v", to, err)
	}
	wantDirectory(t, other, map[string]string{"target": "new"})
}

// finishAside writes and finishes a file opened by open.
func finishAside(t *testing.T, a *aside, contents string) error {
	t.Helper()
	if err := a.WriteAt(t.Context(), []byte(contents), 0); err != nil {
		t.Fatal(err)
	}
	return errors.Join(a.Finish(t.Context()), a.Close())
}

// TestAside_Hidden: on a file system without O_TMPFILE a hidden file is created, and
// removed.
func TestAside_Hidden(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	make := func(existing Existing) *aside {
		a := &aside{path: path, existing: existing}
		if err := a.openHidden(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	left := make(Refuse)
	if len(inDirectory(t, dir)) != 1 {
		t.Error("no hidden file exists")
	}
	if err := left.Close(); err != nil {
		t.Error(err)
	}
	wantDirectory(t, dir, nil)
	one, two := make(Refuse), make(Refuse)
	if err := finishAside(t, one, "one"); err != nil {
		t.Error(err)
	}
	if err := finishAside(t, two, "two"); !errors.Is(err, ErrExists) {
		t.Errorf("two files with one name: %v", err)
	}
	wantDirectory(t, dir, map[string]string{"disk": "one"})
	if err := finishAside(t, make(Overwrite), "three"); err != nil {
		t.Error(err)
	}
	wantDirectory(t, dir, map[string]string{"disk": "three"})
}

// TestCreateFile_Concurrent: of concurrent copies to one name each writes a complete
// file, and with Refuse only one succeeds.
func TestCreateFile_Concurrent(t *testing.T) {
	dir := t.TempDir()
	for _, existing := range []Existing{Refuse, Overwrite} {
		path := filepath.Join(dir, "disk")
		var all sync.WaitGroup
		results := make([]error, 8)
		files := make([]Disk, len(results))
		for i := range files { // open all before the first is named
			var err error
			if files[i], err = CreateFile(path, 1<<20, existing); err != nil {
				t.Fatal(err)
			}
		}
		for i, a := range files {
			all.Go(func() {
				results[i] = errors.Join(a.WriteAt(t.Context(), bytes.Repeat([]byte{byte('a' + i)}, 1<<20), 0), a.(Finisher).Finish(t.Context()), a.Close())
			})
		}
		all.Wait()
		failed := slices.DeleteFunc(results, func(err error) bool { return err == nil })
		if existing == Refuse && len(failed) != 7 || existing == Overwrite && len(failed) != 0 {
			t.Errorf("existing %d: %v", existing, failed)
		}
		got := inDirectory(t, dir)["disk"]
		if len(got) != 1<<20 || got != string(bytes.Repeat([]byte{got[0]}, 1<<20)) {
			t.Errorf("existing %d: the file has none of the contents", existing)
		}
	}
}

// killedEnv makes the test program the client that TestCreateFile_Killed kills.
const killedEnv = "ODX_TEST_CREATE_FILE"

// TestCreateFile_Killed: SIGKILL during a copy leaves only the old file.
func TestCreateFile_Killed(t *testing.T) {
	if path := os.Getenv(killedEnv); path != "" {
		dst, err := CreateFile(path, 1<<20, Overwrite)
		if err == nil {
			err = dst.WriteAt(t.Context(), make([]byte, 1<<19), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("written\n")
		io.Copy(io.Discard, os.Stdin) // until it is killed
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := openAside(path, Overwrite); err != nil || a.hidden != "" {
		t.Skipf("the file system of %s does not support O_TMPFILE: %v", dir, err)
	} else if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCreateFile_Killed$")
	c.Env = append(os.Environ(), killedEnv+"="+path)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "written\n" {
		t.Fatalf("the client printed %q, %v", line, err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it was killed
	wantDirectory(t, dir, map[string]string{"disk": "old"})
}

// TestOpenFile_Pipe: a named pipe is no disk, and is not waited for.
func TestOpenFile_Pipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := OpenFile(path); err == nil || !strings.Contains(err.Error(), "neither a file nor a block device") {
		t.Errorf("opened %v, %v", d, err)
	}
}
