package vhdxfile

import (
	"errors"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// damaged is a file under test with deliberate damage.
type damaged struct {
	t testing.TB
	m *disktest.Memory
	f *File
}

func (d damaged) put(off int64, p ...byte) { must.Succeed(d.t, d.m.WriteAt(d.t.Context(), p, off)) }

func (d damaged) put64(off int64, v uint64) { d.put(off, le.AppendUint64(nil, v)...) }

// bat sets an entry of the BAT.
func (d damaged) bat(index int64, e uint64) { d.put64(newBATAt+index*8, e) }

// sealed changes a structure that has a checksum.
func (d damaged) sealed(off, length int64, change func(p []byte)) {
	p := make([]byte, length)
	must.Succeed(d.t, d.m.ReadAt(d.t.Context(), p, off))
	change(p)
	seal(p)
	d.put(off, p...)
}

// headers changes both headers, regions both region tables.
func (d damaged) headers(change func(p []byte)) {
	for n := range 2 {
		d.sealed(headerAt(n), headerLength, change)
	}
}

func (d damaged) regions(change func(p []byte)) {
	for n := range 2 {
		d.sealed(regionTableAt(n), regionTableLength, change)
	}
}

// Items of the metadata table, in the order of Create.
const (
	parametersAt = newMetadataAt + metadataTableLength
	itemsAt      = newMetadataAt + 32
)

// The tests damage files. The differencing disk of five blocks has block 0 partially
// present at 5 MiB and block 1 fully at 6 MiB, and its sector bitmap at 4 MiB, whose
// entry is the last one, 4096 blocks after the first.
func TestCheck_Damage(t *testing.T) {
	at32 := func(at int, v uint32) func([]byte) { return func(p []byte) { le.PutUint32(p[at:], v) } }
	at64 := func(at int, v uint64) func([]byte) { return func(p []byte) { le.PutUint64(p[at:], v) } }
	for name, tt := range map[string]struct {
		damage func(damaged)
		want   string // in the findings
		opens  bool   // despite the damage
	}{
		"nothing":                  {func(damaged) {}, "", true},
		"signature":                {func(d damaged) { d.put(0, 'V') }, "signature", false},
		"empty":                    {func(d damaged) { must.Succeed(d.t, d.m.Truncate(t.Context(), 0)) }, "signature", false},
		"truncated":                {func(d damaged) { must.Succeed(d.t, d.m.Truncate(t.Context(), 2*mib)) }, "exceeds the file", false},
		"payload truncated":        {func(d damaged) { must.Succeed(d.t, d.m.Truncate(t.Context(), 6*mib+512)) }, "block 1 exceeds the file", false},
		"a header":                 {func(d damaged) { d.put(headerAt(0)+16, 1) }, "header 1 is damaged", true},
		"both headers":             {func(d damaged) { d.put(headerAt(0)+100, 1); d.put(headerAt(1)+100, 1) }, "both headers are damaged", false},
		"equal sequence numbers":   {func(d damaged) { d.headers(at64(8, 3)); d.sealed(headerAt(1), headerLength, at32(4000, 3)) }, "sequence number 3", false},
		"equal headers":            {func(d damaged) { d.headers(at64(8, 3)) }, "", true},
		"version 2":                {func(d damaged) { d.headers(at32(64, 2<<16)) }, "format version 2", false},
		"a log of version 1":       {func(d damaged) { d.headers(func(p []byte) { p[48], p[64] = 1, 1 }) }, "log version 1", false},
		"an unused log of that":    {func(d damaged) { d.headers(func(p []byte) { p[64] = 1 }) }, "", true},
		"a log of half a MiB":      {func(d damaged) { d.headers(at32(68, mib/2)) }, "invalid log of", false},
		"a log of 1 GiB":           {func(d damaged) { d.headers(at32(68, 1<<30)) }, "exceeds the file", false},
		"a log of 2 GiB":           {func(d damaged) { d.headers(at32(68, 2<<30)) }, "maximum is 1073741824", false},
		"a log in the headers":     {func(d damaged) { d.headers(at64(72, 0)) }, "invalid log of", false},
		"a log after the file":     {func(d damaged) { d.headers(at64(72, 1<<63)) }, "exceeds the file", false},
		"a log over the metadata":  {func(d damaged) { d.headers(at64(72, newMetadataAt)) }, "overlap", false},
		"a log of nothing":         {func(d damaged) { d.headers(func(p []byte) { d.headers(at32(48, 1)) }) }, "file was not closed", true},
		"a region table":           {func(d damaged) { d.put(regionTableAt(0)+1000, 1) }, "region table 1 is damaged", true},
		"the other region table":   {func(d damaged) { d.put(regionTableAt(1), 1) }, "region table 2 is damaged", true},
		"both region tables":       {func(d damaged) { d.put(regionTableAt(0), 1); d.put(regionTableAt(1), 1) }, "both region tables", false},
		"different region tables":  {func(d damaged) { d.sealed(regionTableAt(1), regionTableLength, at32(4000, 1)) }, "differ", true},
		"too many regions":         {func(d damaged) { d.regions(at32(8, 2048)) }, "2048 entries", false},
		"no BAT":                   {func(d damaged) { d.regions(func(p []byte) { p[16]++; p[44] = 0 }) }, "missing region", false},
		"a region twice":           {func(d damaged) { d.regions(func(p []byte) { copy(p[48:64], p[16:32]) }) }, "duplicate region", false},
		"a region that is needed":  {func(d damaged) { d.regions(func(p []byte) { le.PutUint32(p[8:], 3); copy(p[80:], p[48:80]); p[80]++ }) }, "unknown required region", false},
		"a region not needed":      {func(d damaged) { d.extraRegion(7 * mib) }, "", true},
		"one over a block":         {func(d damaged) { d.extraRegion(6 * mib) }, "block 1 overlaps", false},
		"regions that overlap":     {func(d damaged) { d.extraRegion(newBATAt) }, "overlap", false},
		"a region in the headers":  {func(d damaged) { d.regions(at64(32, 0)) }, "invalid region", false},
		"a region at 2^63":         {func(d damaged) { d.regions(at64(32, 1<<63)) }, "region", false},
		"a region of nothing":      {func(d damaged) { d.regions(at32(40, 0)) }, "invalid region", false},
		"a region between MiB":     {func(d damaged) { d.regions(at64(32, 3*mib+4096)) }, "invalid region", false},
		"the metadata table":       {func(d damaged) { d.put(newMetadataAt, 1) }, "metadata table is damaged", false},
		"too many items":           {func(d damaged) { d.put(newMetadataAt+10, 0xff, 0xff) }, "65535 entries", false},
		"an item missing":          {func(d damaged) { d.put(itemsAt+32, 1); d.put(itemsAt+32+24, isVirtualDisk) }, "missing metadata item", false},
		"an item twice":            {func(d damaged) { d.copyItem(1, 0) }, "duplicate metadata item", false},
		"an item that is needed":   {func(d damaged) { d.put(itemsAt+32, 1) }, "unknown required metadata item", false},
		"an item in the table":     {func(d damaged) { d.put(itemsAt+16, 0, 0, 0, 0) }, "exceeds the region", false},
		"an item after the end":    {func(d damaged) { d.put(itemsAt+16, 0, 0, 0xf0, 0xff) }, "exceeds the region", false},
		"items that overlap":       {func(d damaged) { d.put(itemsAt+32+16, 4, 0, 1, 0) }, "overlap", false},
		"an item of wrong length":  {func(d damaged) { d.put(itemsAt+20, 4) }, "want 8", false},
		"an empty item":            {func(d damaged) { d.put(itemsAt+16, make([]byte, 8)...) }, "want 8", false},
		"blocks of 3 MiB":          {func(d damaged) { d.put(parametersAt, 0, 0, 0x30, 0) }, "blocks of 3145728", false},
		"no blocks":                {func(d damaged) { d.put(parametersAt, 0, 0, 0, 0) }, "blocks of 0", false},
		"no size":                  {func(d damaged) { d.put64(parametersAt+8, 0) }, "a disk of 0", false},
		"size of 2^63":             {func(d damaged) { d.put64(parametersAt+8, 1<<63) }, "maximum is 64 TiB", false},
		"half a sector":            {func(d damaged) { d.put64(parametersAt+8, 5*mib+1) }, "use a multiple of 512", false},
		"a BAT that is too short":  {func(d damaged) { d.put64(parametersAt+8, 1<<40) }, "the disk needs", false},
		"a BAT that is too long":   {func(d damaged) { d.put64(parametersAt+8, 64<<40) }, "the disk needs 537001984", false},
		"sectors of 520 bytes":     {func(d damaged) { d.put(parametersAt+32, 8) }, "sectors of 520", false},
		"no parent locator":        {func(d damaged) { d.put(itemsAt+5*32, 1); d.put(itemsAt+5*32+24, 0) }, "missing parent locator of the differencing disk", false},
		"a parent of another sort": {func(d damaged) { d.put(parametersAt+40, 1) }, "unknown parent locator type", false},
		"a locator with too much":  {func(d damaged) { d.put(parametersAt+58, 0xff, 0xff) }, "65535 entries", false},
		"a key outside":            {func(d damaged) { d.put(parametersAt+60, 0xff, 0xff, 0xff, 0xff) }, "parent locator: text of", false},
		"no linkage":               {func(d damaged) { d.put(parametersAt+40+0x2c, 'P') }, "parent locator: invalid parent_linkage", false},
		"no path":                  {func(d damaged) { d.put(parametersAt+40+0x94, 'R') }, "parent locator has no path", true},
		"a reserved state":         {func(d damaged) { d.bat(2, 4) }, "block 2 has the reserved state 4", false},
		"an old state":             {func(d damaged) { d.bat(2, 5) }, "", true},
		"unmapped, with an offset": {func(d damaged) { d.bat(2, entry(unmapped, 1<<40)) }, "", true},
		"an offset of 0":           {func(d damaged) { d.bat(2, 6) }, "block 2 exceeds the file", false},
		"a block over the BAT":     {func(d damaged) { d.bat(2, entry(fullyPresent, newBATAt)) }, "block 2 overlaps", false},
		"a block over a block":     {func(d damaged) { d.bat(2, entry(fullyPresent, 6*mib)) }, "block 2 overlaps", false},
		"a block over a bitmap":    {func(d damaged) { d.bat(2, entry(fullyPresent, 4*mib)) }, "sector bitmap 0 overlaps", false},
		"a block after the file":   {func(d damaged) { d.bat(2, entry(fullyPresent, 1<<62)) }, "block 2 exceeds the file", false},
		"a block at -1 MiB":        {func(d damaged) { d.bat(2, ^uint64(mib-1)|6) }, "block 2 exceeds the file", false},
		"no chunk":                 {func(d damaged) { d.bat(5, entry(fullyPresent, newBATAt)) }, "", true},
		"a bitmap missing":         {func(d damaged) { d.bat(4096, 0) }, "block 0 is partially present, but its sector bitmap is missing", false},
		"a bitmap's state":         {func(d damaged) { d.bat(4096, entry(partiallyPresent, 4*mib)) }, "sector bitmap 0 has the reserved state 7", false},
		"a bitmap after the file":  {func(d damaged) { d.bat(4096, entry(fullyPresent, 1<<40)) }, "sector bitmap 0 exceeds the file", false},
		"no parent at all":         {func(d damaged) { d.put(parametersAt+4, 0) }, "block 0 is partially present, but the disk has no parent", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDamaged(t)
			tt.damage(d)
			found, err := Check(t.Context(), d.m)
			must.Succeed(t, err)
			var texts []string
			for _, f := range found {
				texts = append(texts, f.Text)
				if !tt.opens && strings.Contains(f.Text, tt.want) && f.Harmless {
					t.Errorf("%q is reported as harmless", f.Text)
				}
			}
			text := strings.Join(texts, "; ")
			if tt.want == "" && text != "" || !strings.Contains(text, tt.want) {
				t.Errorf("Check finds %q, want %q", text, tt.want)
			}
			for _, open := range []func() (*File, error){
				func() (*File, error) { return OpenReadOnly(t.Context(), d.m) },
				func() (*File, error) { return Open(t.Context(), d.m) },
			} {
				before := d.m.Bytes()
				_, err := open()
				switch {
				case tt.opens && err != nil:
					t.Errorf("Open: %v", err)
				case !tt.opens && !errors.Is(err, disk.ErrFormat):
					t.Errorf("error %v", err)
				case !tt.opens && string(before) != string(d.m.Bytes()):
					t.Error("a file that was refused was changed")
				}
			}
		})
	}
}

func newDamaged(t testing.TB) damaged {
	t.Helper()
	m, f := newDisk(t, spec(disk.Differencing, 5*mib))
	must.Succeed(t, f.Allocate(t.Context(), []int64{0}))
	must.Succeed(t, f.Complete(t.Context(), []int64{1}))
	must.Succeed(t, f.Close(t.Context()))
	if f.block(0).Offset != 5*mib || f.block(1).Offset != 6*mib || f.table.bitmap(0) != 4096 || m.Size() != 7*mib {
		t.Fatal("the file is not as the tests describe it")
	}
	return damaged{t, m, f}
}

// extraRegion adds an optional region.
func (d damaged) extraRegion(at uint64) {
	if int64(at) >= d.m.Size() {
		must.Succeed(d.t, d.m.Truncate(d.t.Context(), int64(at)+mib))
	}
	d.regions(func(p []byte) {
		le.PutUint32(p[8:], 3)
		e := p[80:]
		e[0] = 1
		le.PutUint64(e[16:], at)
		le.PutUint32(e[24:], mib)
	})
}

// copyItem overwrites one item of the metadata table with another.
func (d damaged) copyItem(to, from int64) {
	p := make([]byte, 16)
	must.Succeed(d.t, d.m.ReadAt(d.t.Context(), p, itemsAt+32*from))
	d.put(itemsAt+32*to, p...)
}

// The number of findings is bounded.
func TestCheck_MaxFindings(t *testing.T) {
	m, f := newDisk(t, spec(disk.Dynamic, 1000*mib))
	closeFile(t, f)
	for i := range int64(1000) {
		must.Succeed(t, m.WriteAt(t.Context(), []byte{4}, newBATAt+i*8))
	}
	found, err := Check(t.Context(), m)
	if err != nil || len(found) != maxFindings+1 || found[maxFindings].Text != "900 more findings" {
		t.Errorf("%d findings, %v, %v", len(found), found[len(found)-1], err)
	}
}

// The sector bitmap entry of a dynamic disk is harmless.
func TestCheck_OldDynamicDisk(t *testing.T) {
	m, f := newDisk(t, spec(disk.Dynamic, 5000*mib))
	must.Succeed(t, f.Allocate(t.Context(), []int64{0}))
	closeFile(t, f)
	must.Succeed(t, m.WriteAt(t.Context(), le.AppendUint64(nil, entry(fullyPresent, f.block(0).Offset)), newBATAt+f.table.ratio*8))
	if text := clean(t, m); !strings.Contains(text, "only a differencing disk uses") {
		t.Errorf("Check finds %s", text)
	}
	_, err := Open(t.Context(), m)
	must.Succeed(t, err)
}

// TestCheck_NoLog: a file without a log cannot be changed, which Check says.
func TestCheck_NoLog(t *testing.T) {
	d := newDamaged(t)
	d.headers(func(p []byte) { le.PutUint32(p[68:], 0) })
	found, err := Check(t.Context(), d.m)
	must.Succeed(t, err)
	if len(found) == 0 || !found[0].Harmless || !strings.Contains(found[0].Text, "no log and can only be opened read-only") {
		t.Errorf("Check finds %+v", found)
	}
	f, err := OpenReadOnly(t.Context(), d.m)
	must.Succeed(t, err)
	f.Release()
	if _, err := Open(t.Context(), d.m); !errors.Is(err, disk.ErrFormat) {
		t.Errorf("Open: %v", err)
	}
}
