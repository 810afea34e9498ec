package backstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"odx/backstore/layout"
	"odx/backstore/vfs"
)

// mayRead returns an error where files are there that this user may not read: what
// is in them is not lost. Nothing is in spare files.
func (m *repair) mayRead() error {
	for _, dir := range []string{m.o.Dir, filepath.Join(m.o.Dir, layout.CheckpointDir), filepath.Join(m.o.Dir, layout.JournalDir), m.o.segmentPath()} {
		names, err := m.fsys.List(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return accessError(err)
		}
		for _, base := range names {
			if dir != m.o.Dir && (strings.HasPrefix(base, "spare") || strings.HasSuffix(base, ".spare")) {
				continue
			}
			if err := m.mayReadFile(filepath.Join(dir, base)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *repair) mayReadFile(name string) error {
	open := m.fsys.Open
	if r, ok := m.fsys.(vfs.Reader); ok {
		open = r.OpenToRead
	}
	f, err := open(name)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("nothing is lost that only may not be read: %w", accessError(err))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil && filepath.Dir(name) != m.o.Dir { // where there are directories, too
		m.from.log.WithError(err).WithField("file", name).Warn("a file of the store cannot be opened")
	}
	return nil
}

// copySegments copies the segments of the store to the new one.
func (m *repair) copySegments(ctx context.Context) error {
	to := filepath.Join(m.o.To, layout.SegmentDir)
	if err := m.to.opts.FS.MkdirAll(to); err != nil {
		return err
	}
	var done, total int64
	ids := m.from.parts.segments.List()
	for _, id := range ids {
		total += m.from.parts.segments.Bytes(id)
	}
	buf := make([]byte, 1<<20)
	for _, id := range ids {
		from := m.from.opts.segmentFile(id)
		if _, err := m.from.tryOpen(id); err != nil && m.from.parts.usage.Live(id) == 0 {
			continue // whatever has this name is not needed
		}
		n, err := m.copyFile(ctx, from, filepath.Join(to, filepath.Base(from)), buf)
		if err != nil {
			return err
		}
		if done += n; m.o.Progress != nil {
			m.o.Progress(done, total)
		}
	}
	return m.to.opts.FS.SyncDir(to)
}

// copyFile copies a file as far as it can be read: what cannot is zeros, which fail
// their checksums.
func (m *repair) copyFile(ctx context.Context, from, to string, buf []byte) (size int64, err error) {
	in, err := m.from.opts.FS.Open(from) // which may be read-only
	if err != nil {
		m.note(Lost{What: from, Reason: err.Error()})
		return 0, nil
	}
	defer in.Close()
	if size, err = in.Size(); err != nil {
		return 0, err
	}
	out, err := m.to.opts.FS.Create(to)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for off := int64(0); off < size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		p := buf[:min(int64(len(buf)), size-off)]
		if _, rerr := in.ReadAt(p, off); rerr != nil && rerr != io.EOF {
			m.readInBlocks(in, p, off)
		}
		if _, err := out.WriteAt(p, off); err != nil {
			return 0, err
		}
	}
	return size, out.Sync()
}

// readInBlocks reads what can be read of p.
func (m *repair) readInBlocks(in vfs.File, p []byte, off int64) {
	for at := 0; at < len(p); at += BlockLength {
		block := p[at:min(at+BlockLength, len(p))]
		if _, err := in.ReadAt(block, off+int64(at)); err != nil && err != io.EOF {
			clear(block)
		}
	}
}
