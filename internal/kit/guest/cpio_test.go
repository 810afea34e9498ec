package guest

import (
	"bytes"
	"testing"
)

// TestArchive compares a small archive with its layout, field by field.
func TestArchive(t *testing.T) {
	var got bytes.Buffer
	a := newArchive(&got)
	a.file("/etc/x", 0o640, []byte("hello"))
	a.file("etc/x", 0o600, []byte("the first one counts"))
	a.link("init", "etc/x")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	header := func(ino, mode, links, size, name string) string {
		const zero = "00000000"
		return "070701" + ino + mode + zero + zero + links + zero + size + zero + zero + zero + zero + name + zero
	}
	want := header("00000001", "000041ED", "00000002", "00000000", "00000004") + "etc\x00\x00\x00" +
		header("00000002", "000081A0", "00000001", "00000005", "00000006") + "etc/x\x00" + "hello\x00\x00\x00" +
		header("00000003", "0000A1FF", "00000001", "00000005", "00000005") + "init\x00\x00" + "etc/x\x00\x00\x00" +
		header("00000004", "00000000", "00000001", "00000000", "0000000B") + "TRAILER!!!\x00\x00\x00\x00"
	if got.String() != want {
		t.Errorf("got\n%q\nwant\n%q", got.String(), want)
	}
	if !a.has("/etc") || a.has("usr") {
		t.Error("has() does not know what was added")
	}
}
