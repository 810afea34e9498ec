package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// file is a regular file or a block device of this machine.
type file struct {
	*os.File
	size    int64
	regular bool
}

// OpenFile opens a file for reading.
func OpenFile(path string) (Disk, error) {
	// Without O_NONBLOCK the open of a named pipe waits for a writer, beyond Ctrl-C.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return newFile(f)
}

func newFile(f *os.File) (Disk, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	kind := info.Mode()
	if !kind.IsRegular() && (kind&os.ModeDevice == 0 || kind&os.ModeCharDevice != 0) {
		return nil, errors.Join(fmt.Errorf("%s is neither a file nor a block device", f.Name()), f.Close())
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &file{File: f, size: size, regular: kind.IsRegular()}, nil
}

func (f *file) Size() int64      { return f.size }
func (f *file) BlockLength() int { return 1 }

func (f *file) ReadAt(_ context.Context, p []byte, off int64) error {
	n, err := f.File.ReadAt(p, off)
	if errors.Is(err, io.EOF) && off+int64(n) >= f.size {
		clear(p[n:])
		return nil
	}
	return err
}

func (f *file) WriteAt(_ context.Context, p []byte, off int64) error {
	_, err := f.File.WriteAt(p, off)
	return err
}

// Zero punches a hole, or writes zeros if the file system does not support holes.
func (f *file) Zero(ctx context.Context, off, length int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	for ; length > 0 && ctx.Err() == nil; off, length = off+chunk, length-chunk {
		if err := f.WriteAt(ctx, zeros[:min(length, chunk)], off); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (f *file) Flush(context.Context) error { return f.Sync() }

// NextData finds the next part of the file that is not a hole.
func (f *file) NextData(_ context.Context, off int64) (start, length int64, err error) {
	if !f.regular {
		return off, f.size - off, nil
	}
	start, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, nil // only a hole
	}
	if err != nil {
		return off, max(f.size-off, 0), nil // the file system does not support SEEK_DATA
	}
	end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	return start, end - start, err
}
