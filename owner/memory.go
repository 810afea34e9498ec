package owner

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Memory is a Driver in memory: what an engine with leases does, for tests, and for stores
// that are in memory.
type Memory struct {
	lease  time.Duration
	margin time.Duration
	now    func() time.Duration

	mu      sync.Mutex // guards what follows
	epoch   uint64
	held    bool
	expires time.Duration
	freed   chan struct{} // closed when the holder releases
}

// NewMemory returns a place without an owner, whose last claim had an epoch. A claim ends
// a lease after its last renewal, by the clock now; it is used for margin less, since the
// clocks of owners go faster and slower. With a lease of 0, it ends with Release or Revoke.
func NewMemory(epoch uint64, lease, margin time.Duration, now func() time.Duration) *Memory {
	return &Memory{lease: lease, margin: margin, now: now, epoch: epoch, freed: make(chan struct{})}
}

// RenewEvery implements Driver.
func (m *Memory) RenewEvery() time.Duration {
	if m.lease == 0 {
		return time.Second
	}
	return m.lease / 4
}

// Claim implements Driver.
func (m *Memory) Claim(ctx context.Context) (Holding, error) {
	h, _, err := m.claim(ctx)
	return h, err
}

// claim is Claim; freed is closed when the present holder releases.
func (m *Memory) claim(ctx context.Context) (h Holding, freed <-chan struct{}, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heldNow() {
		return nil, m.freed, fmt.Errorf("epoch %d: %w", m.epoch, ErrHeld)
	}
	m.epoch++
	m.held, m.freed = true, make(chan struct{})
	m.extend()
	return &memoryHolding{m: m, epoch: m.epoch}, nil, nil
}

// Wait implements Driver.
func (m *Memory) Wait(ctx context.Context) (Holding, error) {
	for {
		h, freed, err := m.claim(ctx)
		if freed == nil {
			return h, err
		}
		var expired <-chan time.Time
		if m.lease != 0 {
			expired = time.After(m.RenewEvery())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-freed:
		case <-expired:
		}
	}
}

// heldNow reports whether there is an owner. m.mu is held.
func (m *Memory) heldNow() bool { return m.held && (m.lease == 0 || m.now() < m.expires) }

// extend lets the claim begin again. m.mu is held.
func (m *Memory) extend() {
	if m.lease != 0 {
		m.expires = m.now() + m.lease
	}
}

// Epoch returns the epoch of the last claim.
func (m *Memory) Epoch() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch
}

// Admits returns ErrLost for a write of an owner after whom there was another claim: an engine
// compares the epoch in one step with each write.
func (m *Memory) Admits(epoch uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.compare(epoch)
}

// compare is Admits. m.mu is held.
func (m *Memory) compare(epoch uint64) error {
	if epoch != m.epoch {
		return fmt.Errorf("%w: epoch %d, now %d", ErrLost, epoch, m.epoch)
	}
	return nil
}

// Revoke takes the store from its owner, who sees that at its next renewal.
func (m *Memory) Revoke() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end()
}

// end ends the claim. m.mu is held.
func (m *Memory) end() {
	if m.held {
		m.held = false
		close(m.freed)
	}
}

type memoryHolding struct {
	m     *Memory
	epoch uint64
}

func (h *memoryHolding) Epoch() uint64 { return h.epoch }

func (h *memoryHolding) Lease() time.Duration {
	return max(h.m.lease-h.m.margin, 0)
}

func (h *memoryHolding) Renew(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.compare(h.epoch); err != nil {
		return err
	}
	if !h.m.heldNow() {
		return fmt.Errorf("%w: epoch %d has ended", ErrLost, h.epoch)
	}
	h.m.extend()
	return nil
}

func (h *memoryHolding) Release() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.m.compare(h.epoch) == nil {
		h.m.end()
	}
	return nil
}
