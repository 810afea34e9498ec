package guest

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"
)

// archive writes a cpio archive in the "newc" format, which is what a kernel
// unpacks as its first root file system (kernel documentation,
// driver-api/early-userspace/buffer-format). Errors are kept until close.
type archive struct {
	w    io.Writer
	made map[string]bool
	ino  int
	err  error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, made: map[string]bool{".": true}}
}

// above returns an archive to be unpacked over a: what a has is dropped.
func (a *archive) above(w io.Writer) *archive {
	return &archive{w: w, made: maps.Clone(a.made)}
}

// File types of the mode field, as in stat(2).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

// dir adds a directory and those above it.
func (a *archive) dir(name string) {
	name = clean(name)
	if a.made[name] {
		return
	}
	a.dir(path.Dir(name))
	a.made[name] = true
	a.entry(name, typeDir|0o755, nil)
}

// file adds a file with its permissions. A name counts once: later ones of
// the same name are dropped.
func (a *archive) file(name string, perm fs.FileMode, data []byte) {
	a.add(name, typeFile|uint32(perm.Perm()), data)
}

// link adds a symbolic link.
func (a *archive) link(name, target string) {
	a.add(name, typeLink|0o777, []byte(target))
}

func (a *archive) add(name string, mode uint32, data []byte) {
	name = clean(name)
	if a.made[name] {
		return
	}
	a.dir(path.Dir(name))
	a.made[name] = true
	a.entry(name, mode, data)
}

// has reports whether name was added.
func (a *archive) has(name string) bool { return a.made[clean(name)] }

// close writes the trailer and returns the first error of all.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}

func (a *archive) entry(name string, mode uint32, data []byte) {
	if a.err != nil {
		return
	}
	a.ino++
	links := 1
	if mode&typeDir != 0 && mode&typeFile != typeFile {
		links = 2
	}
	var b strings.Builder
	b.WriteString("070701")
	for _, field := range []int{a.ino, int(mode), 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(&b, "%08X", field)
	}
	b.WriteString(name + "\x00" + padding(b.Len()+len(name)+1))
	if _, err := io.WriteString(a.w, b.String()); err != nil {
		a.err = err
		return
	}
	_, err := a.w.Write(append(data[:len(data):len(data)], padding(len(data))...))
	a.err = err
}

// padding fills up to a multiple of four.
func padding(n int) string { return "\x00\x00\x00"[:-n&3] }

func clean(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}
