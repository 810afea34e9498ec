package admin

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// TestGroupMemory: the smallest bound counts, of the group or of one that it is
// in, in either version of the kernel's interface.
func TestGroupMemory(t *testing.T) {
	const none = math.MaxInt64
	root := t.TempDir()
	for name, text := range map[string]string{
		"memory/memory.limit_in_bytes":           "9223372036854771712",
		"memory/box/memory.limit_in_bytes":       "1048576000",
		"memory/box/inner/memory.limit_in_bytes": "2097152000",
		"a.slice/memory.max":                     "max",
		"a.slice/odx.service/memory.max":         "268435456",
		"broken/memory.max":                      "x",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for list, want := range map[string]int64{
		"":                                     none,
		"0::/\n":                               none,
		"0::/a.slice/odx.service\n":            256 << 20,
		"0::/a.slice\n":                        none,
		"0::/gone\n":                           none,
		"0::/broken\n":                         none,
		"4:memory:/box/inner\n1:cpu:/\n0::/\n": 1048576000,
		"4:memory:/\n":                         9223372036854771712,
		"nonsense":                             none,
	} {
		if got := groupMemory(root, []byte(list)); got != want {
			t.Errorf("%q: %d bytes, want %d", list, got, want)
		}
	}
	if n := availableMemory(); n <= 0 {
		t.Errorf("this machine has %d bytes", n)
	}
}
