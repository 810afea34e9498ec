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

// Uses reports which objects of the store are served.
type Uses interface {
	// CheckFile returns an error for a file that must not change.
	CheckFile(name string) error
	// CheckVolume returns an error for a volume that only the LUN that serves it may
	// write to.
	CheckVolume(name string) error
}

// Config configures a Manager.
type Config struct {
	Store  *backstore.Store
	Engine *offload.Engine
	Uses   Uses
	Log    *logrus.Entry
	// TableMemory bounds the cached block allocation tables of all open VHDX disks, in
	// bytes; each disk has at least 64 KiB. 0: defaultTableMemory.
	TableMemory int64
	// Operations bounds the operations that run concurrently; further ones wait. Each
	// takes OperationMemory. 0: defaultOperations.
	Operations int
}

const (
	// defaultTableMemory is the default of Config.TableMemory.
	defaultTableMemory = 32 << 20
	// OperationMemory bounds the memory of an operation in bytes, without tables and the
	// buffers of copies: parts of tables, bitmaps and logs.
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
	running chan struct{} // semaphore of operations

	stop     context.CancelFunc // of sweeping
	sweeping sync.WaitGroup

	mu sync.Mutex // guards the following
	// files are those with writers or an operation, by name.
	files map[string]*occupancy
	// scratch has the time of the last use of each file of a client, by name.
	scratch map[string]time.Time
}

// New returns a manager. It removes the files of interrupted operations and clients,
// unless the store is open for reading only. The caller closes the manager.
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

// TableBytes returns the size of the cached block allocation tables of all open VHDX
// disks.
func (m *Manager) TableBytes() int64 { return m.formats.tables.HeldBytes() }

func checkName(name string) error {
	if name == "" || name[0] == '/' || name[0] == '.' || path.Clean(name) != name {
		return fmt.Errorf("%w: file name %q; write a path like images/base.vhdx", blockdev.ErrInvalid, name)
	}
	return nil
}

// produce calls make to create a file, and renames the complete file to that of n, in one
// step with the deletion of the replaced files.
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

// vacate returns an error if a file of that name cannot be created: ErrExists without
// replace, ErrHasChildren if the existing file has children.
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
