// Package invariant provides assertions that are compiled in by the build tag
// invariants: a violation panics where it is detected. Without the tag, Enabled is
// a false constant and the compiler removes every check.
//
//	go test -tags invariants ./backstore/... ./tokens/... ./target/...
package invariant

import "fmt"

// Violated panics with a formatted description of the violation.
func Violated(format string, args ...any) {
	panic("invariant violated: " + fmt.Sprintf(format, args...))
}
