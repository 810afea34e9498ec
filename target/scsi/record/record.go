// Package record is the contract of what a logical unit keeps over a restart.
package record

import "context"

// Store is where a logical unit keeps the little that has to outlive a
// restart: saved mode parameters, a sanitize operation that has not ended,
// persistent reservations. The keys are the logical unit's own; each part of
// the device server names its own.
type Store interface {
	// Load returns the value last saved under key, nil when there is none.
	Load(key string) ([]byte, error)
	// Save replaces the value of key; a nil one removes it. It is durable when
	// Save returns.
	Save(ctx context.Context, key string, value []byte) error
}
