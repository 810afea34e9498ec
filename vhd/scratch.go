package vhd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/vhd/disk"
)

// Names that begin with a dot cannot be given by a client. Both prefixes begin random
// names of files that are removed when the manager starts.
const (
	// tempPrefix begins the names of the files of operations.
	tempPrefix = ".vhd-"
	// scratchPrefix begins the names of the files of clients: unfinished uploads, and
	// exports.
	scratchPrefix = ".part-"
)

const (
	// scratchIdle is the idle time after which a scratch file is removed: its client may
	// have been killed.
	scratchIdle = time.Hour
	// sweepPeriod is the time between two searches for such files.
	sweepPeriod = 10 * time.Minute
)

func tempName() string { return tempPrefix + rand.Text() }

// IsScratch reports whether a name is one of NewScratch.
func IsScratch(name string) bool { return strings.HasPrefix(name, scratchPrefix) }

// NewScratch creates a hidden file of size zero bytes, in which a client assembles the file
// like. Its random name, which only its client knows, has the extension of the format. It
// is removed when the store is opened again, and after an hour without use.
func (m *Manager) NewScratch(ctx context.Context, like string, size int64) (*backstore.Volume, error) {
	return m.newScratch(ctx, like, func(name string) (*backstore.Volume, error) {
		f, err := m.store.CreateFile(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := f.Truncate(ctx, size); err != nil {
			return nil, errors.Join(err, m.store.DeleteFile(context.WithoutCancel(ctx), name))
		}
		return f, nil
	})
}

// CopyToScratch creates a hidden file, as NewScratch does, that equals a volume or a file
// as it is now.
func (m *Manager) CopyToScratch(ctx context.Context, from *backstore.Volume, like string) (*backstore.Volume, error) {
	return m.newScratch(ctx, like, func(name string) (*backstore.Volume, error) {
		return m.store.CloneFile(ctx, from, name)
	})
}

func (m *Manager) newScratch(ctx context.Context, like string, make func(name string) (*backstore.Volume, error)) (*backstore.Volume, error) {
	name := scratchName(FormatOf(like))
	m.Touch(name)
	f, err := make(name)
	if err != nil {
		m.forgetScratch(name)
	}
	return f, err
}

func scratchName(f disk.Format) string {
	name := scratchPrefix + rand.Text()
	if f == disk.Raw {
		return name
	}
	return name + "." + string(f)
}

// Touch notes that a scratch file is in use.
func (m *Manager) Touch(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scratch[name] = time.Now()
}

// removeLeft deletes the hidden files of operations and clients of an earlier process.
func (m *Manager) removeLeft(ctx context.Context) error {
	for _, f := range m.store.Files() {
		if !strings.HasPrefix(f.Name(), tempPrefix) && !IsScratch(f.Name()) {
			continue
		}
		if err := m.store.DeleteFile(ctx, f.Name()); err != nil {
			return fmt.Errorf("remove what an interrupted operation on a virtual disk left: %w", err)
		}
	}
	return nil
}

// sweep deletes abandoned scratch files from time to time.
func (m *Manager) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := m.dropAbandoned(ctx, time.Now().Add(-scratchIdle)); err != nil && ctx.Err() == nil {
			m.log.WithError(err).Warn("scratch file not removed")
		}
	}
}

// dropAbandoned deletes the scratch files that were not used since then. One that cannot
// be deleted is tried again the next time.
func (m *Manager) dropAbandoned(ctx context.Context, since time.Time) error {
	m.mu.Lock()
	var old []string
	for name, used := range m.scratch {
		if m.files[name] == nil && used.Before(since) {
			old = append(old, name)
		}
	}
	m.mu.Unlock()
	var errs []error
	for _, name := range old {
		if err := m.store.DeleteFile(ctx, name); err != nil && !errors.Is(err, backstore.ErrNotFound) {
			errs = append(errs, fmt.Errorf("remove what a client left: %w", err))
			continue
		}
		m.forgetScratch(name)
	}
	return errors.Join(errs...)
}

func (m *Manager) forgetScratch(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.scratch, name)
}

// Naming is a complete scratch file and its future name.
type Naming struct {
	Scratch, Name string
	// Overwrite allows an existing file of the name, and replaces it.
	Overwrite bool
}

// Finish renames a scratch file, durably: backstore.ErrExists if there is a file of that
// name and n does not allow to overwrite it.
func (m *Manager) Finish(ctx context.Context, n Naming) error {
	if !IsScratch(n.Scratch) {
		return fmt.Errorf("%w: %s is not a scratch file", blockdev.ErrInvalid, n.Scratch)
	}
	if err := checkName(n.Name); err != nil {
		return err
	}
	if err := m.uses.CheckFile(n.Name); err != nil {
		return err
	}
	// Concurrent calls are ordered by the store; an operation on the file makes this one
	// fail.
	end, err := m.Write(n.Name)
	if err != nil {
		return err
	}
	defer end()
	if err := m.vacate(ctx, n.Name, n.Overwrite); err != nil {
		return err
	}
	return m.rename(ctx, n)
}

// rename renames a file, in one step with the deletion of the replaced files.
func (m *Manager) rename(ctx context.Context, n Naming, replaced ...string) error {
	if !n.Overwrite {
		return m.store.NameFile(ctx, n.Scratch, n.Name, replaced...)
	}
	for {
		// Another file may have got the name since the lookup.
		err := m.store.RenameFile(ctx, n.Scratch, n.Name, replaced...)
		if !errors.Is(err, backstore.ErrChanged) || ctx.Err() != nil {
			return err
		}
	}
}
