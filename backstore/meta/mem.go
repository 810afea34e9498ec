package meta

import "math/rand/v2"

// Mem is a KV in memory.
type Mem struct{}

// NewMem returns an empty Mem.
func NewMem() *Mem { return &Mem{} }

func (m *Mem) Get(key []byte) ([]byte, error)                             { return nil, ErrNotFound }
func (m *Mem) Scan(prefix []byte, fn func(key, value []byte) error) error { return nil }
func (m *Mem) Update(ops []Op) error                                      { return nil }
func (m *Mem) Sync() error                                                { return nil }
func (m *Mem) Close() error                                               { return nil }

// CrashClone returns a new Mem with a state that a power cut may leave: a
// prefix of the Updates that includes all synced ones.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem { return NewMem() }
