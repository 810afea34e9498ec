//go:build e2e

package disks

import (
	"strings"
	"testing"

	v1 "odx/api/v1"
)

// imported is a virtual disk that qemu-img makes of the image.
type imported struct {
	name, driver, options string
	// mappable says that qemu-img places payload at multiples of 4 KiB.
	mappable bool
}

var importedDisks = []imported{
	{"dynamic.vhd", "vpc", "subformat=dynamic,force_size=on", false},
	{"fixed.vhd", "vpc", "subformat=fixed,force_size=on", true},
	{"dynamic.vhdx", "vhdx", "subformat=dynamic", true},
	{"fixed.vhdx", "vhdx", "subformat=fixed", true},
}

// TestImport imports what qemu-img makes, and exports it again. In the store every
// payload can be mapped: conversions move nothing.
func TestImport(t *testing.T) {
	t.Parallel() // programs wait for each other a lot
	b := start(t)
	var names []string
	for _, d := range importedDisks {
		local := b.host(d.name)
		b.qemu("convert", "-f", "raw", "-O", d.driver, "-o", d.options, b.image, local)
		var before v1.Disk
		b.admin(&before, "vhd", "info", "--local", local)
		if before.Mappable != d.mappable || before.SizeBytes != imageSize {
			t.Errorf("%s as qemu-img makes it: %+v", d.name, before)
		}
		name := "imported/" + d.name
		b.importDisk(local, name)
		after := b.info(name)
		if !after.Mappable || after.SizeBytes != imageSize || after.Kind != before.Kind || after.ID != before.ID {
			t.Errorf("%s in the store: %+v; on the host: %+v", d.name, after, before)
		}
		b.judge("import", name, b.image)
		other := otherFormat(name)
		b.change("convert", name, other)
		b.judge("convert", other, b.image)
		b.wantSameAs(other, local, d.driver)
		b.admin(nil, "file", "rm", other)
		names = append(names, name)
	}
	// In another format it is converted.
	b.importDisk(b.host("dynamic.vhd"), "imported/other.vhdx")
	b.judge("import into another format", "imported/other.vhdx", b.image)
	b.wantFiles("imported/dynamic.vhd", "imported/dynamic.vhdx", "imported/fixed.vhd", "imported/fixed.vhdx", "imported/other.vhdx")
	b.admin(nil, append([]string{"file", "rm", "imported/other.vhdx"}, names...)...)
	b.wantFiles()
	if err := b.target.CheckStore(b.ctx); err != nil {
		t.Error(err)
	}
}

// importDisk copies a virtual disk of the host into the store.
func (b *bed) importDisk(local, name string) {
	b.t.Helper()
	var r v1.DiskResult
	b.admin(&r, "vhd", "import", local, name)
	if r.Name != name || r.MovedBytes == 0 {
		b.t.Errorf("odx vhd import says %+v", r)
	}
}

func otherFormat(name string) string {
	if disk, ok := strings.CutSuffix(name, ".vhdx"); ok {
		return disk + "-converted.vhd"
	}
	return strings.TrimSuffix(name, ".vhd") + "-converted.vhdx"
}

// wantSameAs has qemu-img compare a disk of the store with a file that it made.
func (b *bed) wantSameAs(name, local, driver string) {
	b.t.Helper()
	file := b.export(name, "same"+name[strings.LastIndexByte(name, '.'):])
	b.qemu("compare", "-f", driver, "-F", drivers[name[strings.LastIndexByte(name, '.'):]], local, file)
}
