package stream

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"odx/internal/kit/harness"
	"odx/internal/kit/must"
)

// TestPython has another reader, which docs/stream.md alone was needed for, read streams: it
// comes to the same content, and refuses what has changed.
func TestPython(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's
	harness.Program(t, python, "python3")
	harness.Program(t, "zstd", "zstd")
	rnd := rand.New(rand.NewPCG(8, 8))
	dir := t.TempDir()
	run := func(name string, b, content []byte) ([]byte, []byte, error) {
		s, c := filepath.Join(dir, name), filepath.Join(dir, name+".content")
		must.Succeed(t, os.WriteFile(s, b, 0o600), os.WriteFile(c, content, 0o600))
		out, err := exec.CommandContext(t.Context(), python, "testdata/read.py", s, c).Output()
		got, readErr := os.ReadFile(c)
		must.Succeed(t, readErr)
		return out, got, err
	}
	for _, level := range []Level{None, Fastest, Best} {
		h := aHeader(600<<10 + 700)
		base := randomBytes(rnd, int(h.BaseSize))
		records := randomRecords(rnd, h.Size)
		want := make([]byte, h.Size)
		copy(want, base)
		for _, r := range records {
			if copy(want[r.Offset:], r.Data); r.Data == nil {
				clear(want[r.Offset:r.End()])
			}
		}
		b := write(t, h, level, records)
		out, got, err := run(level.String(), b, base)
		must.Succeed(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%v: the content differs", level)
		}
		var read struct {
			Store        string `json:"store"`
			Snapshot     string `json:"snapshot"`
			Created      int64  `json:"created"`
			Size         int64  `json:"size"`
			SnapshotName string `json:"snapshot_name"`
			BaseName     string `json:"base_name"`
		}
		must.Succeed(t, json.Unmarshal(out, &read))
		if read.Store != h.Store.String() || read.Snapshot != h.Snapshot.String() || read.Created != h.Created.Unix() || read.Size != h.Size || read.SnapshotName != h.SnapshotName || read.BaseName != h.BaseName {
			t.Errorf("%v: header %s", level, out)
		}
		bad := bytes.Clone(b)
		bad[rnd.IntN(len(bad))] ^= 4
		if _, _, err := run("bad", bad, base); err == nil {
			t.Errorf("%v: a changed byte was accepted", level)
		}
	}
}
