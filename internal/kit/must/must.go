// Package must ends a test at an error that leaves nothing to go on with.
package must

// TB is what helpers need of a test: *testing.T, *testing.B, *testing.F and *rapid.T
// have it. testing.TB has an unexported method, which *rapid.T lacks.
type TB interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// Succeed ends the test at the first of errs that is not nil.
func Succeed(t TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
