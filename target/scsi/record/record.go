// Package record is the contract of the state that a logical unit keeps across
// restarts.
package record

import "context"

// Store stores the state of a logical unit that must survive a restart: saved mode
// parameters, a sanitize operation that has not ended, persistent reservations. The
// keys are local to the logical unit; each part of the device server has its own.
//
// There are two of them: one whose values survive a loss of power, and one whose values
// survive the end of the process alone (see scsi.LUConfig.Era).
type Store interface {
	// Load returns the last saved value of key, or nil.
	Load(key string) ([]byte, error)
	// Save replaces the value of key; nil removes it. The value survives what it has to
	// when Save returns.
	Save(ctx context.Context, key string, value []byte) error
}

// None stores nothing.
type None struct{}

// Load implements Store.
func (None) Load(string) ([]byte, error) { return nil, nil }

// Save implements Store.
func (None) Save(context.Context, string, []byte) error { return nil }
