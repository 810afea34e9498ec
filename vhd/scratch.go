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
	// tempPrefix begins those of files that an operation makes.
	tempPrefix = ".vhd-"
	// scratchPrefix begins those of files that a client fills, or reads, and that have
	// no name of their own.
	scratchPrefix = ".part-"
)

const (
	// scratchIdle is how long a scratch file stays that its client neither reads nor
	// writes: clients are killed, and the server goes on.
	scratchIdle = time.Hour
	// sweepPeriod is the time between two searches for such files.
	sweepPeriod = 10 * time.Minute
)

func tempName() string { return tempPrefix + rand.Text() }

// IsScratch reports whether a name is one of NewScratch.
func IsScratch(name string) bool { return strings.HasPrefix(name, scratchPrefix) }

// NewScratch makes a hidden file of zeros, size bytes long, in which a client puts
// together what is to be the file like. Its name, which is random and so its client's
// alone, has the extension of the format. It is removed when the store is opened again,
// and after an hour without use.
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

// CopyToScratch makes a hidden file, as NewScratch does, that equals a volume or a file
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

// Naming is a scratch file that is whole, and the name that it is to have.
type Naming struct {
	Scratch, Name string
	// Overwrite allows that a file has the name; it is replaced.
	Overwrite bool
}

// Finish gives a scratch file its name, durably. Its errors wrap backstore.ErrExists if
// there is a file of that name that is not to be overwritten.
func (m *Manager) Finish(ctx context.Context, n Naming) error {
	if !IsScratch(n.Scratch) {
		return fmt.Errorf("%w: %s is no file that was begun", blockdev.ErrInvalid, n.Scratch)
	}
	if err := checkName(n.Name); err != nil {
		return err
	}
	if err := m.uses.CheckFile(n.Name); err != nil {
		return err
	}
	// Two that finish at once do so one after the other; an operation on the file is
	// not waited for.
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

// rename gives a file its name, in one step with the deletion of other files.
func (m *Manager) rename(ctx context.Context, n Naming, replaced ...string) error {
	if !n.Overwrite {
		return m.store.NameFile(ctx, n.Scratch, n.Name, replaced...)
	}
	for {
		// Another one may have got the name since it was looked up.
		err := m.store.RenameFile(ctx, n.Scratch, n.Name, replaced...)
		if !errors.Is(err, backstore.ErrChanged) || ctx.Err() != nil {
			return err
		}
	}
}
