package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/DeRuina/timberjack"
)

// fileMode is the mode of a new file: its lines name users and machines.
const fileMode = 0o600

// file is the file of a Log, and the renamed ones next to it. The zero value is none.
type file struct {
	options Options
	writer  *timberjack.Logger // nil until the first line, and without a file
	// torn: the file ends with a part of a line.
	torn bool
	// written is what was in the place of the file after the last line; nil if that is not
	// known.
	written fs.FileInfo
}

// use closes the file, and has the next line open that of o.
func (f *file) use(o Options) {
	f.close()
	f.options, f.torn, f.written = o, false, nil
}

// close closes the file. Its error is dropped: all lines were written before.
func (f *file) close() {
	if f.writer != nil {
		_ = f.writer.Close()
		f.writer = nil
	}
}

// write appends a line, in a new file if this one has reached its size.
func (f *file) write(line []byte) error {
	if f.options.File == "" {
		return nil
	}
	if f.writer != nil && f.moved() {
		f.use(f.options)
	}
	if f.writer == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if f.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := f.writer.Write(line)
	switch {
	case err == nil:
		f.torn = false
		f.written, _ = os.Stat(f.options.File) // nil if it is gone already
	case n > 0:
		f.torn = true
	}
	return err
}

// moved reports whether the file that was written to is not in its place any more: it was
// removed, perhaps with its directory, or another program renames it to rotate it. What is
// written to it would be lost without an error.
func (f *file) moved() bool {
	if f.written == nil {
		return false
	}
	info, err := os.Stat(f.options.File)
	return err != nil || !os.SameFile(info, f.written)
}

// open prepares the writer, which itself opens the file. It would rename what is in the
// place of the file, such as a directory, so that has to be a file.
func (f *file) open() error {
	info, err := os.Stat(f.options.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", f.options.File)
	default:
		f.torn = f.torn || endsTorn(f.options.File, info.Size())
	}
	const mebibyte = 1 << 20
	f.writer = &timberjack.Logger{
		Filename: f.options.File, FileMode: fileMode,
		MaxSize: int(max(1, (f.options.MaxBytes+mebibyte-1)/mebibyte)), MaxBackups: max(1, f.options.Keep),
	}
	return nil
}

// endsTorn reports whether a file does not end with the end of a line, as far as that can
// be read: the disk was full, or the machine lost its power.
func endsTorn(path string, size int64) bool {
	if size == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return err != nil || last[0] != '\n'
}
