package vhd

import (
	"context"
	"errors"
	"fmt"
)

// ErrBusy: another operation is changing the file.
var ErrBusy = errors.New("busy with another operation")

// occupancy counts the writers of a file. An operation replaces the file by a new one, so
// that later writes to the old one would be lost: an operation waits for the writers
// before it, and later ones are refused. It is guarded by Manager.mu.
type occupancy struct {
	busy    bool // an operation changes the file
	writers int
	// idle is created by a waiting operation, and closed when no writers are left.
	idle chan struct{}
}

// Write registers a writer of the file of that name other than an operation, until end is
// called. ErrBusy for a file that an operation changes.
func (m *Manager) Write(name string) (end func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.files[name]
	if o == nil {
		o = &occupancy{}
		m.files[name] = o
	}
	if o.busy {
		return nil, fmt.Errorf("file %s: %w", name, ErrBusy)
	}
	o.writers++
	written, _ := m.store.File(name) // nil if there is none yet
	return func() {
		if written != nil {
			m.lineage.forget(written.ID())
		}
		// Another file may have got the name since.
		if f, err := m.store.File(name); err == nil && f != written {
			m.lineage.forget(f.ID())
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if o.writers--; o.writers > 0 {
			return
		}
		if o.idle != nil {
			close(o.idle)
			o.idle = nil
		}
		m.forget(name, o)
	}, nil
}

// forget drops the entry of a file without writers and operations. m.mu is held.
func (m *Manager) forget(name string, o *occupancy) {
	if !o.busy && o.writers == 0 {
		delete(m.files, name)
	}
}

// begin reserves the files that an operation changes until end is called, and waits for
// their writers.
func (m *Manager) begin(ctx context.Context, names ...string) (end func(), err error) {
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if err := m.uses.CheckFile(name); err != nil {
			return nil, err
		}
	}
	return m.take(ctx, names...)
}

// take is begin without the checks of names and uses.
func (m *Manager) take(ctx context.Context, names ...string) (end func(), err error) {
	m.mu.Lock()
	for _, name := range names {
		if o := m.files[name]; o != nil && o.busy {
			m.mu.Unlock()
			return nil, fmt.Errorf("file %s: %w", name, ErrBusy)
		}
	}
	var idle []chan struct{}
	for _, name := range names {
		o := m.files[name]
		if o == nil {
			o = &occupancy{}
			m.files[name] = o
		}
		o.busy = true
		if o.writers > 0 {
			o.idle = make(chan struct{})
			idle = append(idle, o.idle)
		}
	}
	m.mu.Unlock()
	end = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, name := range names {
			if o := m.files[name]; o != nil {
				o.busy = false
				m.forget(name, o)
			}
		}
	}
	for _, done := range idle {
		select {
		case <-done:
		case <-ctx.Done():
			end()
			return nil, ctx.Err()
		}
	}
	return end, nil
}
