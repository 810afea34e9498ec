// Package invariant lets the store check itself in builds with the tag
// invariants: what must never happen panics where it happens. Without the tag
// Enabled is a false constant and the compiler drops every check.
//
//	go test -tags invariants ./backstore/... ./tokens/... ./target/...
package invariant

import "fmt"

// Violated panics with what was found.
func Violated(format string, args ...any) {
	panic("invariant violated: " + fmt.Sprintf(format, args...))
}
