package vhd

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk/disktest"
)

// foreignFiles are the beginnings, and in one case the end, of files of other formats.
func foreignFiles() map[string][]byte {
	at := func(off int, s string) []byte {
		p := make([]byte, 64<<10)
		copy(p[off:], s)
		return p
	}
	fixed := &craftedVHD{original: mib, current: mib, fixed: noise(1, mib)}
	dynamic := &craftedVHD{original: 4 * mib, current: 4 * mib}
	return map[string][]byte{
		"qcow2":     at(0, "QFI\xfb\x00\x00\x00\x03"),
		"VMDK":      at(0, "KDMV\x01\x00\x00\x00"),
		"VMDK ":     at(0, "# Disk DescriptorFile\nversion=1\n"),
		"VMDK  ":    at(0, "COWD\x01\x00\x00\x00"),
		"VDI":       at(0, "<<< Oracle VM VirtualBox Disk Image >>>\n"+strings.Repeat("\x00", 24)+"\x7f\x10\xda\xbe"),
		"QED":       at(0, "QED\x00"),
		"Parallels": at(0, "WithoutFreeSpace"),
		"DMG":       at(64<<10-512, "koly"),
		"xz":        at(0, "\xfd7zXZ\x00"),
		"gzip":      at(0, "\x1f\x8b\x08"),
		"VHD":       fixed.file(),
		"VHD ":      dynamic.file(),
		"VHD  ":     dynamic.file()[:len(dynamic.file())-512], // its end cut off
		"VHDX":      (&disktest.VHDX{Size: 4 * mib}).Bytes(),
	}
}

// TestManager_Foreign: files that are not what their names say are refused with what to do,
// and are raw disks for those who insist.
func TestManager_Foreign(t *testing.T) {
	for format, p := range foreignFiles() {
		t.Run(format, func(t *testing.T) {
			b := start(t)
			format = strings.TrimSpace(format)
			begin := func(like string) string {
				f, err := b.NewScratch(ctx, like, int64(len(p)))
				must.Succeed(t, err)
				must.Succeed(t, f.WriteAt(ctx, p, 0))
				return f.Name()
			}
			b.raw(t, "d.img", p)
			for _, r := range []Request{
				{Operation: Convert, Source: "d.img", Destination: "x.vhdx"},
				{Operation: ToVolume, Source: "d.img", Destination: "x"},
				{Operation: Export, Source: "d.img", Destination: "x.vhdx"},
				{Operation: Import, Source: begin("d.img"), Destination: "x.vhd"},
				{Operation: Import, Source: begin("d.img"), Destination: "x.img"},
			} {
				if _, err := b.Do(ctx, r, nil); !errors.Is(err, ErrForeign) || !errors.Is(err, blockdev.ErrInvalid) || !strings.Contains(err.Error(), " is "+format+"; ") {
					t.Errorf("%s: %v", r.Operation, err)
				}
				r.Raw = true
				result, err := b.Do(ctx, r, nil)
				if err != nil {
					t.Errorf("%s, raw: %v", r.Operation, err)
					continue
				}
				if r.Operation == ToVolume {
					must.Succeed(t, b.store.DeleteVolume(ctx, "x"))
					continue
				}
				f, err := b.openPlaced(ctx, result.Name, result.Name)
				must.Succeed(t, err)
				got := make([]byte, len(p))
				if f.disk != nil {
					must.Succeed(t, f.disk.ReadAt(ctx, got, 0))
				} else {
					must.Succeed(t, f.file.ReadAt(ctx, got, 0))
				}
				f.release()
				if !bytes.Equal(got, p) {
					t.Errorf("%s, raw: the bytes are others", r.Operation)
				}
				must.Succeed(t, b.store.DeleteFile(ctx, result.Name))
			}
			findings, err := b.Check(ctx, "d.img")
			must.Succeed(t, err)
			if len(findings) != 1 || !findings[0].Harmless || !strings.Contains(findings[0].Text, format) {
				t.Errorf("check: %+v", findings)
			}
			if d, err := b.Describe(ctx, "d.img"); err != nil || d.LooksLike != format {
				t.Errorf("%+v, %v", d, err)
			}
			// With a name of one of the two formats it is what it is, or refused, too.
			for _, name := range []string{"d.vhd", "d.vhdx"} {
				if strings.EqualFold(name[2:], format) {
					continue
				}
				if _, err := b.Do(ctx, Request{Operation: Import, Source: begin(name), Destination: "x" + name[1:]}, nil); !errors.Is(err, ErrForeign) {
					t.Errorf("import of %s as %s: %v", format, name, err)
				}
			}
		})
	}
}

// TestManager_ForeignNames: nothing is made under a name that promises another format.
func TestManager_ForeignNames(t *testing.T) {
	b := start(t)
	b.raw(t, "d.img", noise(1, mib))
	_, err := b.store.CreateVolume(ctx, "v", mib)
	must.Succeed(t, err)
	for _, ext := range []string{".qcow2", ".QCOW2", ".vmdk", ".vdi", ".img.gz"} {
		for _, r := range []Request{
			{Operation: Create, Destination: "x" + ext, Size: mib},
			{Operation: Convert, Source: "d.img", Destination: "x" + ext},
			{Operation: FromVolume, Source: "v", Destination: "x" + ext},
			{Operation: Export, Source: "d.img", Destination: "x" + ext},
		} {
			if _, err := b.Do(ctx, r, nil); !errors.Is(err, ErrForeign) {
				t.Errorf("%s of x%s: %v", r.Operation, ext, err)
			}
			r.Raw = true
			result := b.do(t, r)
			must.Succeed(t, b.store.DeleteFile(ctx, result.Name))
		}
	}
	// What a guest writes to its disk changes nothing for a format with a structure.
	b.do(t, Request{Operation: Create, Destination: "g.vhdx", Size: 8 * mib})
	b.write(t, "g.vhdx", []byte("QFI\xfb"), 0)
	b.do(t, Request{Operation: Convert, Source: "g.vhdx", Destination: "g.vhd", Fixed: true})
	b.do(t, Request{Operation: Convert, Source: "g.vhd", Destination: "h.vhdx"})
}

// TestOpenHostFile_Pipe: a named pipe is no disk, and is not waited for.
func TestOpenHostFile_Pipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.vhd")
	must.Succeed(t, syscall.Mkfifo(path, 0o600))
	if f, err := OpenHostFile(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("opened %v, %v", f, err)
	}
}
