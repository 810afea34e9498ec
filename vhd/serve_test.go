package vhd

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"odx/internal/kit/must"
)

// disagree makes the second copy of a structure of a file differ from the first one,
// with a valid checksum: the copy of the footer of a VHD (VHD 1.0), or the second region
// table of a VHDX (MS-VHDX 2.2.3).
func (b *bed) disagree(t *testing.T, name string) {
	t.Helper()
	f, err := b.store.File(name)
	must.Succeed(t, err)
	if strings.HasSuffix(name, ".vhd") {
		p := make([]byte, 512)
		must.Succeed(t, f.ReadAt(ctx, p, 0))
		p[68]++ // unique id
		clear(p[64:68])
		var sum uint32
		for _, c := range p {
			sum += uint32(c)
		}
		binary.BigEndian.PutUint32(p[64:], ^sum)
		must.Succeed(t, f.WriteAt(ctx, p, 0))
		return
	}
	p := make([]byte, 64*1024)
	must.Succeed(t, f.ReadAt(ctx, p, 256*1024))
	p[12]++ // reserved
	clear(p[4:8])
	binary.LittleEndian.PutUint32(p[4:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	must.Succeed(t, f.WriteAt(ctx, p, 256*1024))
}

// TestManager_Serve_Disagreement: a disk whose copies of a structure are both valid and
// differ is served, and so is one over it, with one warning that names the file.
func TestManager_Serve_Disagreement(t *testing.T) {
	want := map[string]string{
		".vhd":  "the footer at the end and its copy at the start are both valid and differ (unique id)",
		".vhdx": "region tables differ",
	}
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		b.do(t, Request{Operation: Create, Destination: "a" + ext, Size: 4 * mib})
		b.do(t, Request{Operation: Snapshot, Source: "a" + ext, Destination: "child" + ext})
		log, seen := logtest.NewNullLogger()
		b.log = logrus.NewEntry(log)
		served := map[string]func() (*Served, error){
			"read-only": func() (*Served, error) { return b.ServeReadOnly(ctx, "a"+ext) },
			"child":     func() (*Served, error) { return b.Serve(ctx, "child"+ext) },
			"writable":  func() (*Served, error) { return b.Serve(ctx, "a"+ext) },
		}
		for how, serve := range served {
			s, err := serve()
			must.Succeed(t, err)
			must.Succeed(t, s.Close(ctx))
			if n := len(seen.AllEntries()); n != 0 {
				t.Errorf("%s: %d log lines of a sound disk, %q", how, n, seen.LastEntry().Message)
			}
		}
		for how, serve := range served {
			b.disagree(t, "a"+ext)
			seen.Reset()
			s, err := serve()
			must.Succeed(t, err)
			must.Succeed(t, s.Close(ctx))
			all := seen.AllEntries()
			if len(all) != 1 || all[0].Level != logrus.WarnLevel || all[0].Data["file"] != "a"+ext || !strings.Contains(all[0].Message, want[ext]) {
				t.Errorf("%s: log lines %v", how, all)
			}
		}
	})
}
