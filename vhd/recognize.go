package vhd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"odx/blockdev"
	"odx/vhd/disk"
	"odx/vhd/vhdfile"
)

// ErrForeign: a file has an unsupported format, or another one than its name. Its bytes
// can be used as a raw disk (Request.Raw).
var ErrForeign = errors.New("another format")

// foreignError is an ErrForeign, and blockdev.ErrInvalid, with a text of its own.
type foreignError struct{ text string }

func (e *foreignError) Error() string   { return e.text }
func (e *foreignError) Unwrap() []error { return []error{ErrForeign, blockdev.ErrInvalid} }

func foreign(format string, args ...any) error {
	return &foreignError{fmt.Sprintf(format, args...)}
}

// signature identifies a format by bytes at a place of the file.
type signature struct {
	offset int64
	bytes  string
	format string // its name
}

// signatures returns the signatures of formats of disks and of archives. A negative
// offset is relative to the end.
func signatures() []signature {
	return []signature{
		{0, "vhdxfile", "VHDX"},
		{0, "QFI\xfb", "qcow2"},
		{0, "KDMV", "VMDK"},
		{0, "COWD", "VMDK"},
		{0, "\xbe\xba\xfe\xca\x00\x00\x00\x00", "VMDK"},
		{0, "# Disk DescriptorFile", "VMDK"},
		{0x40, "\x7f\x10\xda\xbe", "VDI"},
		{0, "QED\x00", "QED"},
		{0, "WithoutFreeSpace", "Parallels"},
		{0, "WithouFreSpacExt", "Parallels"},
		{-512, "koly", "DMG"},
		{0, "\x1f\x8b\x08", "gzip"},
		{0, "\xfd7zXZ\x00", "xz"},
		{0, "\x28\xb5\x2f\xfd", "Zstandard"},
		{0, "BZh", "bzip2"},
		{0, "PK\x03\x04", "ZIP"},
	}
}

// promised returns the unsupported format of the extension of a name, "" for other names.
func promised(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".qcow", ".qcow2":
		return "qcow2"
	case ".vmdk":
		return "VMDK"
	case ".vdi":
		return "VDI"
	case ".qed":
		return "QED"
	case ".hdd", ".hds":
		return "Parallels"
	case ".dmg":
		return "DMG"
	case ".ova":
		return "OVA"
	case ".gz", ".tgz":
		return "gzip"
	case ".xz":
		return "xz"
	case ".zst":
		return "Zstandard"
	case ".bz2":
		return "bzip2"
	case ".zip":
		return "ZIP"
	}
	return ""
}

// recognize returns the format of the contents of a file, "" for a raw disk.
func recognize(ctx context.Context, r blockdev.Reader) (string, error) {
	switch is, err := vhdfile.HasFooter(ctx, r); {
	case err != nil:
		return "", err
	case is:
		return "VHD", nil
	}
	for _, s := range signatures() {
		at := s.offset
		if at < 0 {
			at += r.Size()
		}
		p := make([]byte, len(s.bytes))
		if at < 0 || at+int64(len(p)) > r.Size() {
			continue
		}
		if err := r.ReadAt(ctx, p, at); err != nil {
			return "", fmt.Errorf("read the start and the end: %w", err)
		}
		if bytes.Equal(p, []byte(s.bytes)) {
			return s.format, nil
		}
	}
	return "", nil
}

// CheckSource returns ErrForeign for a file of an administrator whose contents or name are
// those of an unsupported format, or whose contents have another format than its name.
func CheckSource(ctx context.Context, name string, r blockdev.Reader) error {
	found, err := recognize(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	want := ""
	if f := FormatOf(name); f != disk.Raw {
		want = strings.ToUpper(string(f))
	} else if found == "" {
		found = promised(name)
	}
	if found == "" || found == want {
		return nil // opening it finds damage
	}
	return foreign("%s is %s; %s", name, found, advice(found, name))
}

// CheckRaw returns ErrForeign for a file that is to be copied to a raw disk although its
// contents have the format of a disk or an archive.
func CheckRaw(ctx context.Context, name string, r blockdev.Reader) error {
	found, err := recognize(ctx, r)
	if err != nil || found == "" {
		return err
	}
	what := advice(found, name)
	if found == "VHD" || found == "VHDX" {
		what = "import it with odx vhd import, and copy the disk in it with odx vhd to-volume"
	}
	return foreign("%s is %s; %s", name, found, what)
}

// advice returns the remedy for a file of a format.
func advice(format, name string) string {
	base := strings.TrimSuffix(name, path.Ext(name))
	switch format {
	case "VHD":
		return "give it a name that ends in .vhd"
	case "VHDX":
		return "give it a name that ends in .vhdx"
	case "gzip", "xz", "Zstandard", "bzip2", "ZIP", "OVA":
		return "unpack it first"
	}
	return fmt.Sprintf("convert it first: qemu-img convert -O vhdx %s %s.vhdx", name, base)
}

// CheckTarget returns ErrForeign for the name of a new file that has the extension of an
// unsupported format.
func CheckTarget(name string) error {
	format := promised(name)
	if format == "" {
		return nil
	}
	return foreign("%s is a name for %s, which is not written here; make it .vhd, .vhdx or, raw, .img, and convert that with other programs", name, format)
}

// checkForeign checks the names, and the contents of the source, of an operation that
// imports, exports or converts a disk.
func (j *job) checkForeign(ctx context.Context) error {
	if j.request.Raw {
		return nil
	}
	switch j.request.Operation {
	case Create, Convert, FromVolume, Import, Export:
		if err := CheckTarget(j.request.Destination); err != nil {
			return err
		}
	}
	switch j.request.Operation {
	case Convert, ToVolume, Import:
	case Export:
		if FormatOf(j.request.Source) == FormatOf(j.request.Destination) {
			return nil // it is copied byte for byte
		}
	default:
		return nil
	}
	f, err := j.manager.store.File(j.request.Source)
	if err != nil {
		return err
	}
	return CheckSource(ctx, j.request.Source, f)
}
