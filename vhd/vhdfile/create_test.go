package vhdfile

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// TestCreate_Golden compares new disks byte by byte.
func TestCreate_Golden(t *testing.T) {
	for name, s := range map[string]disk.Spec{
		"fixed":        {Kind: disk.Fixed, ID: someID, Geometry: disk.Geometry{Size: 64 << 10}},
		"dynamic":      {ID: someID, Geometry: disk.Geometry{Size: 10 << 30}},
		"differencing": spec(disk.Differencing, 200),
	} {
		t.Run(name, func(t *testing.T) {
			_, c := made(t, s)
			got := dump(c.Bytes())
			path := filepath.Join("testdata", name+".txt")
			if *rewrite {
				must.Succeed(t, os.WriteFile(path, []byte(got), 0o644))
			}
			want, err := os.ReadFile(path)
			must.Succeed(t, err)
			if got != string(want) {
				t.Errorf("the file differs from %s:\n%s", path, got)
			}
			wantClean(t, c)
		})
	}
}

// dump prints 16 bytes per line, and repeated lines as one *.
func dump(p []byte) string {
	var s strings.Builder
	var last []byte
	starred := false
	for at := 0; at < len(p); at += 16 {
		line := p[at:min(at+16, len(p))]
		if bytes.Equal(line, last) {
			if !starred {
				s.WriteString("*\n")
			}
			starred = true
			continue
		}
		last, starred = line, false
		text := bytes.Clone(line)
		for i, b := range text {
			if b < ' ' || b > '~' {
				text[i] = '.'
			}
		}
		fmt.Fprintf(&s, "%08X  % -48x %s\n", at, line, text)
	}
	fmt.Fprintf(&s, "%08X\n", len(p))
	return s.String()
}

// TestFile_Info: Info returns the Spec that the disk was created with.
func TestFile_Info(t *testing.T) {
	const gib = 1 << 30
	for name, tt := range map[string]struct {
		spec        disk.Spec
		kind        disk.Kind
		blockLength int64
	}{
		"nothing but a size":    {disk.Spec{Geometry: disk.Geometry{Size: 512}}, disk.Dynamic, 2 * mib},
		"odd size":              {disk.Spec{Geometry: disk.Geometry{Size: 3*gib + 512}}, disk.Dynamic, 2 * mib},
		"beyond any geometry":   {disk.Spec{Geometry: disk.Geometry{Size: 500 * gib}}, disk.Dynamic, 2 * mib},
		"largest":               {disk.Spec{Geometry: disk.Geometry{Size: 2040 * gib}}, disk.Dynamic, 2 * mib},
		"small blocks":          {disk.Spec{Geometry: disk.Geometry{Size: gib, BlockLength: 4096}}, disk.Dynamic, 4096},
		"large blocks":          {disk.Spec{Geometry: disk.Geometry{Size: gib, BlockLength: 2 * gib}}, disk.Dynamic, 2 * gib},
		"fixed":                 {disk.Spec{Kind: disk.Fixed, Geometry: disk.Geometry{Size: mib + 512}}, disk.Fixed, 2 * mib},
		"fixed has no blocks":   {disk.Spec{Kind: disk.Fixed, Geometry: disk.Geometry{Size: mib, BlockLength: 4096}}, disk.Fixed, 2 * mib},
		"a parent says it all":  {disk.Spec{Parent: aParent, Geometry: disk.Geometry{Size: mib}}, disk.Differencing, 2 * mib},
		"physical sectors":      {disk.Spec{Geometry: disk.Geometry{Size: mib, PhysicalSectorLength: 4096, SectorLength: 512}}, disk.Dynamic, 2 * mib},
		"identifiers are given": {disk.Spec{ID: someID, Geometry: disk.Geometry{Size: mib}}, disk.Dynamic, 2 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := made(t, tt.spec)
			want := disk.Info{
				Format: disk.VHD, Kind: tt.kind,
				Geometry: disk.Geometry{Size: tt.spec.Size, BlockLength: tt.blockLength, SectorLength: 512, PhysicalSectorLength: 512},
				ID:       tt.spec.ID, Parent: tt.spec.Parent, Creator: "win", Created: someTime,
			}
			got := f.Info()
			if want.ID == (disk.GUID{}) {
				if got.ID == want.ID || got.ID[6]>>4 != 4 || got.ID[8]>>6 != 2 {
					t.Errorf("identifier %x", got.ID)
				}
				want.ID = got.ID
			}
			want.DiskID = want.ID
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestCreate_Invalid(t *testing.T) {
	for says, s := range map[string]disk.Spec{
		"logical sectors of 4096 bytes: VHD has 512": {Geometry: disk.Geometry{Size: mib, SectorLength: 4096}},
		"multiple of 512":                               {Geometry: disk.Geometry{Size: 1000}},
		"a disk of 0 bytes":                             {},
		"a disk of -512 bytes":                          {Geometry: disk.Geometry{Size: -512}},
		"the maximum is 2040 GiB":                       {Geometry: disk.Geometry{Size: 2040<<30 + 512}},
		"powers of two from 4096":                       {Geometry: disk.Geometry{Size: mib, BlockLength: 2048}},
		"blocks of 12288 bytes":                         {Geometry: disk.Geometry{Size: mib, BlockLength: 12288}},
		"blocks of -4096 bytes":                         {Geometry: disk.Geometry{Size: mib, BlockLength: -4096}},
		"the maximum is 4194304 blocks":                 {Geometry: disk.Geometry{Size: 17 << 30, BlockLength: 4096}},
		"exceed the 2 TiB that BAT entries can address": {Geometry: disk.Geometry{Size: 2040 << 30, BlockLength: 512 << 10}},
		"a differencing disk has a par":                 {Kind: disk.Differencing, Geometry: disk.Geometry{Size: mib}},
		"only a differencing disk has a parent":         {Kind: disk.Dynamic, Parent: aParent, Geometry: disk.Geometry{Size: mib}},
		"must have a path of its parent":                {Parent: &disk.Parent{}, Geometry: disk.Geometry{Size: mib}},
		`"a\x00b" is not a path`:                        {Parent: &disk.Parent{Paths: []string{"a\x00b"}}, Geometry: disk.Geometry{Size: mib}},
		`"" is not a path`:                              {Parent: &disk.Parent{Paths: []string{""}}, Geometry: disk.Geometry{Size: mib}},
		"9 paths of the parent":                         {Parent: &disk.Parent{Paths: make([]string, 9)}, Geometry: disk.Geometry{Size: mib}},
		"unknown kind of disk":                          {Kind: 9, Geometry: disk.Geometry{Size: mib}},
	} {
		c := disktest.New([]byte("what was there"))
		_, err := Create(t.Context(), c, s)
		if !errors.Is(err, blockdev.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", s, err, says)
		}
		if string(c.Bytes()) != "what was there" {
			t.Errorf("%s: Create fails and changes the file", says)
		}
	}
}

// TestGeometryOf: results of the algorithm of the specification.
func TestGeometryOf(t *testing.T) {
	for _, tt := range []struct {
		size int64
		want geometry
	}{
		{512, geometry{0, 4, 17}},
		{64 * mib, geometry{963, 8, 17}},
		{67125248, geometry{964, 8, 17}}, // qemu-img create for 64 MiB
		{256 * mib, geometry{520, 16, 63}},
		{504 * mib, geometry{1024, 16, 63}},
		{10 << 30, geometry{20805, 16, 63}},
		{200 << 30, maximumGeometry},
		{2040 << 30, maximumGeometry},
	} {
		if got := geometryOf(tt.size); got != tt.want {
			t.Errorf("%d bytes: %v, want %v", tt.size, got, tt.want)
		}
	}
}

// TestParent_Paths: paths are encoded and decoded, and paths written by other programs
// are decoded.
func TestParent_Paths(t *testing.T) {
	for _, paths := range [][]string{
		{"base.vhd"}, {"../base.vhd"}, {"images/größe 😀.vhd"}, {`\\server\share\base.vhd`},
		{"/srv/a b%20.vhd"}, {"./x:y/base.vhd"}, {"a", "b/c", `d:\e`, "/f"},
	} {
		s := spec(disk.Differencing, 1)
		s.Parent = &disk.Parent{Paths: paths}
		f, _ := made(t, s)
		if got := f.Info().Parent; !reflect.DeepEqual(got, s.Parent) {
			t.Errorf("got %+v, want %+v", got, s.Parent)
		}
	}
	for _, tt := range []struct {
		platform, text string
		want           string
		relative       bool
	}{
		{"W2ru", "b\x00.\x00\\\x00c\x00\x00\x00x\x00", "b./c", true},
		{"W2ru", "C\x00:\x00\\\x00c\x00", `C:\c`, false},
		{"W2ku", "C\x00:\x00", "C:", false},
		{"W2ru", "\x00.\x00\\\x00b", "b", true},
		{"W2ku", "\x00C\x00:\x00\\\x00b", `C:\b`, false},
		{"W2ru", "\xFE\xFF\x00b", "b", true},
		{"W2ru", "\xFF\xFEb\x00", "b", true},
		{"W2ru", ".\x00\\\x00c\x00:\x00b\x00", "./c:b", true},
		{"MacX", "file:a%20b.vhd", "a b.vhd", true},
		{"MacX", "file:../b.vhd", "../b.vhd", true},
		{"MacX", "./b.vhd\x00", "b.vhd", true},
		{"MacX", "/Users/b.vhd", "/Users/b.vhd", false},
		{"MacX", "file:%zz", "", false},
		{"MacX", "file://host", "", false},
		{"MacX", "file://./base.vhd", "base.vhd", true},
		{"MacX", "file:///Users/a%20b.vhd", "/Users/a b.vhd", false},
		{"MacX", "http://host/base.vhd", "", false},
		{"MacX", "\x00\xFF", "", false},
		{"Wi2r", `.\base.vhd`, "base.vhd", true},
		{"Wi2r", "b\x00c\x00", "bc", true},
		{"Wi2k", "C:\\b\xFF", "C:\\b\uFFFD", false},
		{"Mac ", "an alias", "", false},
	} {
		if got, relative := decodePath(tt.platform, []byte(tt.text)); got != tt.want || relative != tt.relative {
			t.Errorf("%s %q: %q, %v", tt.platform, tt.text, got, relative)
		}
	}
}

func TestTimeStamp(t *testing.T) {
	for _, at := range []time.Time{{}, epoch.Add(time.Second), someTime, epoch.Add((1<<32 - 1) * time.Second)} {
		if got := timeOf(stampOf(at)); !got.Equal(at) {
			t.Errorf("%v becomes %v", at, got)
		}
	}
	for _, at := range []time.Time{epoch.Add(-time.Second), epoch.Add(1 << 32 * time.Second)} {
		if stampOf(at) != 0 {
			t.Errorf("%v has a time stamp", at)
		}
	}
}

// TestCreate_ContainerFails: Create returns an error of each call of the container.
func TestCreate_ContainerFails(t *testing.T) {
	broken := errors.New("broken")
	for n := 0; ; n++ {
		c, calls := disktest.New(nil), 0
		c.FailWith(func(string) error {
			if calls++; calls > n {
				return broken
			}
			return nil
		})
		_, err := Create(t.Context(), c, spec(disk.Differencing, 4))
		if err == nil && n > 10 {
			return
		}
		if !errors.Is(err, broken) {
			t.Fatalf("call %d fails: %v", n, err)
		}
	}
}
