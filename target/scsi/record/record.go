// Package record is the contract of the state that a logical unit keeps across
// restarts.
package record

import "context"

// Store stores the state of a logical unit that must survive a restart: saved mode
// parameters, a sanitize operation that has not ended, persistent reservations. The
// keys are local to the logical unit; each part of the device server has its own.
type Store interface {
	// Load returns the last saved value of key, or nil.
	Load(key string) ([]byte, error)
	// Save replaces the value of key; nil removes it. The value is durable when Save
	// returns.
	Save(ctx context.Context, key string, value []byte) error
}
