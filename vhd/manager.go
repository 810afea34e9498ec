package vhd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

// Uses knows what of the store is served.
type Uses interface {
	// CheckFile returns an error for a file that has to stay as it is.
	CheckFile(name string) error
	// CheckVolume returns an error for a volume that is not to be written to but by
	// the LUN that serves it.
	CheckVolume(name string) error
}

// Config is what a Manager works on.
type Config struct {
	Store  *backstore.Store
	Engine *offload.Engine
	Uses   Uses
	Log    *logrus.Entry
	// TableMemory is for what is held of the block allocation tables of all open disks
	// in VHDX, in bytes; each disk has 64 KiB at least. 0: defaultTableMemory.
	TableMemory int64
	// Operations is how many operations run at a time; further ones wait. Each takes
	// OperationMemory. 0: defaultOperations.
	Operations int
}

const (
	// defaultTableMemory is for the tables where the caller does not say, in bytes.
	defaultTableMemory = 32 << 20
	// OperationMemory is what an operation may have in memory, in bytes, in addition to
	// tables and what copies move: pieces of tables, bitmaps and logs.
	OperationMemory   = 4 << 20
	defaultOperations = 4
)

// Manager works on the virtual disks of a store. It is safe for concurrent use.
type Manager struct {
	store  *backstore.Store
	engine *offload.Engine
	uses   Uses
	log    *logrus.Entry

	formats formats
	lineage *lineage
	running chan struct{} // has an element for each operation that runs

	stop     context.CancelFunc // of sweeping
	sweeping sync.WaitGroup

	mu sync.Mutex // of what follows
	// files are those with writers or an operation, by name.
	files map[string]*occupancy
	// scratch is when each file that a client fills or reads was used last.
	scratch map[string]time.Time
}

// New returns the manager, after it has removed what interrupted operations and clients
// left, unless the store is open for reading alone. The caller closes it.
func New(ctx context.Context, c Config) (*Manager, error) {
	m := &Manager{store: c.Store, engine: c.Engine, uses: c.Uses, log: c.Log, files: map[string]*occupancy{}, scratch: map[string]time.Time{}}
	m.formats = formatsWithin(cmp.Or(c.TableMemory, defaultTableMemory))
	m.lineage = newLineage()
	m.running = make(chan struct{}, cmp.Or(c.Operations, defaultOperations))
	if err := m.removeLeft(ctx); err != nil && !errors.Is(err, backstore.ErrStoreReadOnly) {
		return nil, err
	}
	ctx, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	m.sweeping.Go(func() { m.sweep(ctx) })
	return m, nil
}

// Close ends the work in the background. No operation may run.
func (m *Manager) Close() {
	m.stop()
	m.sweeping.Wait()
}

// TableBytes returns what is held of the block allocation tables of all open disks in VHDX,
// in bytes.
func (m *Manager) TableBytes() int64 { return m.formats.tables.HeldBytes() }

func checkName(name string) error {
	if name == "" || name[0] == '/' || name[0] == '.' || path.Clean(name) != name {
		return fmt.Errorf("%w: file name %q; write a path like images/base.vhdx", blockdev.ErrInvalid, name)
	}
	return nil
}

// produce makes a file, and gives it the name of n when it is whole, in one step with the
// deletion of other files.
func (m *Manager) produce(ctx context.Context, n Naming, replaced []string, make func(temp string) error) (err error) {
	n.Scratch = tempName()
	defer func() {
		if err == nil {
			return
		}
		derr := m.store.DeleteFile(context.WithoutCancel(ctx), n.Scratch)
		if !errors.Is(derr, backstore.ErrNotFound) {
			err = errors.Join(err, derr)
		}
	}()
	if err := make(n.Scratch); err != nil {
		return err
	}
	return m.rename(ctx, n, replaced...)
}

// vacate returns why a file of that name cannot be made: there is one, which is not to
// be replaced, or has children that would be lost with it.
func (m *Manager) vacate(ctx context.Context, name string, replace bool) error {
	_, err := m.store.File(name)
	switch {
	case errors.Is(err, backstore.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !replace:
		return fmt.Errorf("file %s: %w", name, backstore.ErrExists)
	}
	return m.CheckNoChildren(ctx, name)
}
