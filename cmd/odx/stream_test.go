package main

import "testing"

// TestIsDisk: a character device such as /dev/null is not a disk, which would take no
// file in another format.
func TestIsDisk(t *testing.T) {
	for name, want := range map[string]bool{
		"/dev/null": false, t.TempDir(): false, "./none": false, "file:a.raw": false, "volume": true, "iscsi://h/t/0": true,
	} {
		if got := isDisk(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
