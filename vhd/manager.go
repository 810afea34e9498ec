package vhd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/tokens"
)

// ErrBusy: another operation is changing the file.
var ErrBusy = errors.New("busy with another operation")

// Uses knows what of the store is served.
type Uses interface {
	// CheckFile returns an error for a file that has to stay as it is.
	CheckFile(name string) error
	// CheckVolume returns an error for a volume that is not to be written to but by
	// whoever serves it.
	CheckVolume(name string) error
}

// Config is what a Manager works on.
type Config struct {
	Store  *backstore.Store
	Tokens *tokens.Manager
	Uses   Uses
	Log    *logrus.Entry
}

// Manager works on the virtual disks of a store. It is safe for concurrent use.
type Manager struct {
	store  *backstore.Store
	tokens *tokens.Manager
	uses   Uses
	log    *logrus.Entry

	mu   sync.Mutex
	busy map[string]bool // files that an operation changes
}

// tempPrefix begins the names of files that are not whole yet. Nobody else can give a
// file a name that begins with a dot.
const tempPrefix = ".vhd-"

// New returns the manager, after it has removed what operations left that a crash
// interrupted.
func New(ctx context.Context, c Config) (*Manager, error) {
	m := &Manager{store: c.Store, tokens: c.Tokens, uses: c.Uses, log: c.Log, busy: map[string]bool{}}
	for _, f := range m.store.Files() {
		if !strings.HasPrefix(f.Name(), tempPrefix) {
			continue
		}
		if err := m.store.DeleteFile(ctx, f.Name()); err != nil {
			return nil, fmt.Errorf("remove what an interrupted operation on a virtual disk left: %w", err)
		}
	}
	return m, nil
}

// Busy returns ErrBusy for a file that an operation changes.
func (m *Manager) Busy(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[name] {
		return fmt.Errorf("file %s: %w", name, ErrBusy)
	}
	return nil
}

// begin takes the files that an operation changes until end is called.
func (m *Manager) begin(names ...string) (end func(), err error) {
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if err := m.uses.CheckFile(name); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if m.busy[name] {
			return nil, fmt.Errorf("file %s: %w", name, ErrBusy)
		}
	}
	for _, name := range names {
		m.busy[name] = true
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, name := range names {
			delete(m.busy, name)
		}
	}, nil
}

func checkName(name string) error {
	if name == "" || name[0] == '/' || name[0] == '.' || path.Clean(name) != name {
		return fmt.Errorf("%w: file name %q; write a path like images/base.vhdx", backstore.ErrInvalid, name)
	}
	return nil
}

func tempName() string { return tempPrefix + rand.Text() }

// produce makes a file, and gives it its name when it is whole: in place of the one
// that has it, and in one step with the deletion of the files in gone.
func (m *Manager) produce(ctx context.Context, name string, gone []string, make func(temp string) error) (err error) {
	temp := tempName()
	defer func() {
		if err == nil {
			return
		}
		derr := m.store.DeleteFile(context.WithoutCancel(ctx), temp)
		if !errors.Is(derr, backstore.ErrNotFound) {
			err = errors.Join(err, derr)
		}
	}()
	if err := make(temp); err != nil {
		return err
	}
	return m.store.RenameFile(ctx, temp, name, gone...)
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
		return fmt.Errorf("file %s: %w; choose another name, or overwrite it", name, backstore.ErrExists)
	}
	return m.checkNoChildren(ctx, name)
}
