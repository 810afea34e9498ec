package view

import (
	"strings"
	"testing"
)

// TestMirrorRecord_Versions: a record has a version. A record of the first format,
// without a version, is read; a record of a later version is an error.
func TestMirrorRecord_Versions(t *testing.T) {
	const golden = `{"version":1,"in_sync":["a","b"],"clean":true}`
	text, err := mirrorRecord{InSync: []string{"a", "b"}, Clean: true}.encode()
	if err != nil || string(text) != golden {
		t.Errorf("%s, %v, want %s", text, err, golden)
	}
	for name, tt := range map[string]struct{ text, fails string }{
		"this one":     {golden, ""},
		"first format": {`{"in_sync":["a","b"],"clean":true}`, ""},
		"a later one":  {`{"version":2,"in_sync":["a","b"],"clean":true}`, "version 2"},
		"none":         {`{"version":-1}`, "version -1"},
		"no record":    {`{"version"`, "JSON"},
	} {
		r, err := decodeMirror([]byte(tt.text))
		if (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: %v, want %q", name, err, tt.fails)
			continue
		}
		if err != nil {
			continue
		}
		if again, err := r.encode(); err != nil || string(again) != golden {
			t.Errorf("%s is encoded again as %s, %v", name, again, err)
		}
	}
}

func FuzzMirrorRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"in_sync":["a","b"],"clean":true}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decodeMirror(text)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeMirror(again); err != nil {
			t.Errorf("%q is encoded again as %s: %v", text, again, err)
		}
	})
}
