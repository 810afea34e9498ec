package vhdxfile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// New files are equal to those in testdata, except for the random FileWriteGuid and the
// checksums over it.
func TestCreate_Golden(t *testing.T) {
	fourK := spec(disk.Dynamic, 40*mib)
	fourK.SectorLength, fourK.BlockLength = 4096, 0
	for name, s := range map[string]disk.Spec{
		"fixed": spec(disk.Fixed, 3*mib), "dynamic-4k": fourK, "differencing": spec(disk.Differencing, 8*mib),
	} {
		t.Run(name, func(t *testing.T) {
			m, f := newDisk(t, s)
			closeFile(t, f)
			data := m.Bytes()
			for n := range 2 {
				h := data[headerAt(n):]
				if !sealed(h[:headerLength], "head") {
					t.Errorf("header %d has a wrong checksum", n+1)
				}
				clear(h[4:8])
				clear(h[16:32])
			}
			got, file := dump(data), filepath.Join("testdata", name+".hex")
			if *rewrite {
				must.Succeed(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			must.Succeed(t, err)
			if got != string(want) {
				t.Errorf("a new file differs from %s:\n%s", file, got)
			}
		})
	}
}

// dump returns the lines of 16 bytes that are not all zero.
func dump(data []byte) string {
	var b strings.Builder
	for at := 0; at < len(data); at += 16 {
		line := data[at:min(at+16, len(data))]
		if strings.Trim(string(line), "\x00") == "" {
			continue
		}
		text := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return '.'
			}
			return r
		}, latin(line))
		fmt.Fprintf(&b, "%08x  % x  %s\n", at, line, text)
	}
	fmt.Fprintf(&b, "%08x  end\n", len(data))
	return b.String()
}

func latin(p []byte) string {
	r := make([]rune, len(p))
	for i, c := range p {
		r[i] = rune(c)
	}
	return string(r)
}
