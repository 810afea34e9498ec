package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const minimal = `data_dir: data
portals: ["127.0.0.1:0"]
targets: [{name: iqn.2026-11.example.odx:disks, luns: [{lun: 0, volume: src, size: 64MiB}]}]
`

// A configuration is a regular file, or what is written to a pipe. Other files are
// refused at once.
func TestLoad_kindsOfFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(file("regular"), []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"idle", "written"} {
		if err := syscall.Mkfifo(file(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writer, err := os.OpenFile(file("written"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	var writers sync.WaitGroup
	defer writers.Wait()
	for _, f := range []*os.File{writer, write} {
		writers.Go(func() {
			defer f.Close()
			if _, err := f.WriteString(minimal); err != nil {
				t.Error(err)
			}
			// The reader waits for more until this end is closed.
			for {
				n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
				if err != nil {
					t.Error(err)
				}
				if err != nil || n == 0 {
					return
				}
				runtime.Gosched()
			}
		})
	}
	for path, want := range map[string]string{
		file("regular"):                      "",
		file("written"):                      "",
		fmt.Sprintf("/dev/fd/%d", read.Fd()): "",
		file("idle"):                         "is a pipe that no program writes to",
		dir:                                  "is a directory; name the file in it",
		"/dev/null":                          "file is empty",
		"/dev/zero":                          "file exceeds 1048576 bytes",
		file("none"):                         "no such file or directory",
	} {
		t.Run(path, func(t *testing.T) {
			_, err := Load(path)
			switch {
			case want == "" && err != nil:
				t.Error(err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), path) != 1):
				t.Errorf("error %v, want one that names the file and has %q", err, want)
			}
		})
	}
	if _, err := Load(file("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Access of others to a private file is a warning, or an error if any user may write.
func TestReadPrivateFile_mode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]struct{ warning, fail string }{
		0o600: {},
		0o400: {},
		0o640: {},
		0o604: {warning: "is world-readable (mode 0604); restrict it with chmod 600"},
		0o644: {warning: "is world-readable (mode 0644); "},
		0o620: {warning: "is group-writable (mode 0620); "},
		0o660: {warning: "is group-writable (mode 0660); "},
		0o664: {warning: "is world-readable and group-writable (mode 0664); "},
		0o602: {fail: "is world-writable (mode 0602); "},
		0o666: {fail: "is world-writable (mode 0666); "},
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		content, warning, err := ReadPrivateFile(path, 100)
		switch {
		case want.fail != "":
			if err == nil || !strings.Contains(err.Error(), want.fail) {
				t.Errorf("%#o: error %v, want %q", mode, err, want.fail)
			}
		case err != nil || string(content) != "content" || (warning == "") != (want.warning == "") || !strings.Contains(warning, want.warning):
			t.Errorf("%#o: %q, warning %q, %v; want warning %q", mode, content, warning, err, want.warning)
		}
	}
}

// A secret in a named pipe is refused, without waiting for a writer.
func TestReadSecretFile_pipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadSecretFile(path); err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
		t.Errorf("error %v", err)
	}
}
