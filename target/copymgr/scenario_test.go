package copymgr

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"odx/target/scsi"
	"odx/tokens"
)

// The commands of Windows' class driver when it finds a disk, and its requirements for
// offloaded copies.
func TestWindows_DeviceStart(t *testing.T) {
	b := start(t, tokens.Limits{})
	inquiry := func(page byte, length uint16) answer {
		return b.send(ctx, b.nexus, lunA, []byte{0x12, 0x01, page, byte(length >> 8), byte(length), 0}, nil)
	}
	pages := inquiry(0x00, 255).data[4:]
	if !slices.IsSorted(pages) || !slices.Contains(pages, 0x8F) || !slices.Contains(pages, 0xB0) {
		t.Errorf("pages % x", pages)
	}
	a := inquiry(0x8F, 255)
	if a.code() != "GOOD" || len(a.data) != 255 {
		t.Fatalf("page 8Fh: %s, %d bytes", a.code(), len(a.data))
	}
	p, be := a.data, binary.BigEndian
	if length := be.Uint16(p[2:]); length < 36 || length > 1020 {
		t.Errorf("PAGE LENGTH %d", length)
	}
	if be.Uint16(p[4:]) != 0 || be.Uint16(p[6:]) != 0x20 {
		t.Errorf("first descriptor % x: want type 0000h of 20h bytes", p[4:8])
	}
	limits := p[4:]
	if got := be.Uint16(limits[10:]); got < 64 {
		t.Errorf("MAXIMUM RANGE DESCRIPTORS %d", got)
	}
	if maximum, normal := be.Uint32(limits[12:]), be.Uint32(limits[16:]); maximum < normal || normal < 35 {
		t.Errorf("inactivity timeouts: maximum %d, default %d", maximum, normal)
	}
	if most, optimal := be.Uint64(limits[20:]), be.Uint64(limits[28:]); optimal > most || optimal*512 != 256<<20 {
		t.Errorf("MAXIMUM TOKEN TRANSFER SIZE %d, OPTIMAL TRANSFER COUNT %d", most, optimal)
	}
	standard := b.send(ctx, b.nexus, lunA, []byte{0x12, 0, 0, 0, 96, 0}, nil).data
	if standard[5]&0x08 == 0 {
		t.Error("3PC is not set")
	}
}

// A file copy as Windows' copy engine does it: tokens with default timeout,
// 805 bytes for the report, writes in pieces, and no report after GOOD.
func TestWindows_FileCopy(t *testing.T) {
	b := start(t, tokens.Limits{})
	data := b.fill(t, lunA, 1)
	b.fill(t, lunB, 2)
	listID := uint32(0)
	source := []rangeOf{{64, 512}, {1024, 256}}
	if a := b.populate(lunA, listID, populateParameters(source...)); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	a := b.rodTokenInformation(lunA, listID, 805)
	p, be := a.data, binary.BigEndian
	if a.code() != "GOOD" || p[4] != 0x10 || p[5] != 0x01 || p[15] != 0xF1 || be.Uint64(p[16:]) != 768 {
		t.Fatalf("%s % x", a.code(), p[:32])
	}
	o := 32 + int(p[13])
	if be.Uint32(p) != uint32(len(p)-4) || be.Uint32(p[o:]) != 0x0202 || be.Uint16(p[o+4:]) != 0 {
		t.Fatalf("ROD token descriptors % x", p[o:o+6])
	}
	token := p[o+6 : o+6+512]
	b.fill(t, lunA, 0xEE) // the token represents the earlier data
	rod := append(bytes.Clone(data[64*512:(64+512)*512]), data[1024*512:(1024+256)*512]...)

	want := b.contents(t, lunB)
	const chunk = 32 // blocks of the destination
	for done := uint64(0); done < 96; done += chunk {
		listID++
		if a := b.writeUsing(lunB, listID, writeParameters(token, done, rangeOf{100 + done, chunk})); a.code() != "GOOD" {
			t.Fatalf("chunk at %d: %s", done, a.code())
		}
	}
	copy(want[100*4096:], rod)
	if !bytes.Equal(b.contents(t, lunB), want) {
		t.Error("wrong data")
	}
}

// A write that stops early is resumed from INFORMATION, without a report.
func TestWindows_ShortWrites(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	data := b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, 1024})
	b.store.MapAtMost(100 * 512) // whole blocks of the destination: 12 and a half
	const total = 128
	for done, calls := uint64(0), 0; done < total; calls++ {
		a := b.writeUsing(lunB, uint32(calls), writeParameters(token, done, rangeOf{8 + done, uint32(total - done)}))
		if a.code() == "GOOD" {
			done = total
			break
		}
		count, ok := a.information()
		if a.code() != "A/0D/04" || !ok || count == 0 || calls > total {
			t.Fatalf("%s, INFORMATION %d", a.code(), count)
		}
		done += uint64(count)
	}
	if !bytes.Equal(b.contents(t, lunB)[8*4096:(8+total)*4096], data[:total*4096]) {
		t.Error("wrong data")
	}
}

func TestZeroToken(t *testing.T) {
	b := start(t, tokens.Limits{})
	zero := make([]byte, 512)
	binary.BigEndian.PutUint32(zero, 0xFFFF0001)
	binary.BigEndian.PutUint16(zero[6:], 0x01F8)
	for _, lun := range []int{lunA, lunB, lunOutside} {
		want := b.fill(t, lun, 1)
		blockLength := b.target.LU(uint16(lun)).LogicalBlockLength()
		// OFFSET INTO ROD does not matter: zeros have no end.
		a := b.writeUsing(lun, 1, writeParameters(zero, 1<<63, rangeOf{3, 5}, rangeOf{20, 100}))
		if a.code() != "GOOD" {
			t.Errorf("LUN %d: %s", lun, a.code())
		}
		clear(want[3*blockLength : 8*blockLength])
		clear(want[20*blockLength : 120*blockLength])
		if !bytes.Equal(b.contents(t, lun), want) {
			t.Errorf("LUN %d: wrong data", lun)
		}
	}
	if b.tokens.Stats().Live != 0 {
		t.Error("the zero token is kept")
	}
}

// The idiom of ddptctl: a write of nothing deletes the token.
func TestDeleteToken(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 8})
	p := writeParameters(token, 0, rangeOf{0, 0})
	p[2] = 0x02
	if a := b.writeUsing(lunB, 1, p); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	if a := b.writeUsing(lunB, 1, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "5/23/09" {
		t.Errorf("%s, want 5/23/09", a.code())
	}
}

// ddpt uses one list identifier for POPULATE TOKEN and WRITE USING TOKEN.
func TestListIdentifier_Reused(t *testing.T) {
	b := start(t, tokens.Limits{})
	first := b.token(t, lunA, rangeOf{0, 8})
	second := b.token(t, lunA, rangeOf{8, 8})
	for _, token := range [][]byte{first, second} {
		if a := b.writeUsing(lunA, 77, writeParameters(token, 0, rangeOf{100, 8})); a.code() != "GOOD" {
			t.Error(a.code())
		}
	}
	p := b.rodTokenInformation(lunA, 77, 1024).data
	if len(p) != 36 || p[4] != 0x11 {
		t.Errorf("report % x; want that of the write", p)
	}
}

func TestRetrieve_LID4(t *testing.T) {
	b := start(t, tokens.Limits{})
	populate := func() {
		t.Helper()
		if a := b.populate(lunA, 7, populateParameters(rangeOf{0, 8})); a.code() != "GOOD" {
			t.Fatal(a.code())
		}
	}
	length := func(allocation uint32) int { return len(b.rodTokenInformation(lunA, 7, allocation).data) }

	populate()
	if a := b.copyStatus(lunA, 7, 255); len(a.data) != 32 || a.data[4] != 0x10 || a.data[5] != 0x01 {
		t.Errorf("RECEIVE COPY STATUS % x", a.data)
	}
	if a := b.rodTokenInformation(lunA, 7, 100); len(a.data) != 100 || binary.BigEndian.Uint32(a.data) != 546 {
		t.Errorf("short read: %d bytes, AVAILABLE DATA %d", len(a.data), binary.BigEndian.Uint32(a.data))
	}
	if got := length(549); got != 549 {
		t.Errorf("%d bytes: a short read lost the token", got)
	}
	if got := length(550); got != 550 {
		t.Errorf("%d bytes", got)
	}
	if got := length(1024); got != 36 {
		t.Errorf("%d bytes: the token was delivered and should be gone, the status not", got)
	}
	populate()
	if a := b.rodTokenInformation(lunA, 7, 0); a.code() != "GOOD" || len(a.data) != 0 {
		t.Errorf("allocation length 0: %s", a.code())
	}
	if got := length(1024); got != 36 {
		t.Errorf("%d bytes after allocation length 0", got)
	}
	if a := b.copyStatus(lunA, 7, 255); a.code() != "GOOD" {
		t.Errorf("RECEIVE COPY STATUS %s: the status should outlive the token data", a.code())
	}
	for _, a := range []answer{b.rodTokenInformation(lunA, 8, 805), b.copyStatus(lunA, 8, 805),
		b.rodTokenInformation(lunB, 7, 805)} {
		if a.code() != "5/24/00" || a.field() != "cdb 2" {
			t.Errorf("unknown list identifier: %s %q", a.code(), a.field())
		}
	}
}

// A list identifier belongs to one I_T nexus; a token is valid on any.
func TestListIdentifier_OtherNexus(t *testing.T) {
	b := start(t, tokens.Limits{})
	data := b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, 8})
	first := b.nexus
	b.nexus = b.attach("iqn.2026-11.example:other")
	if a := b.rodTokenInformation(lunA, 77, 805); a.code() != "5/24/00" {
		t.Errorf("report of another nexus: %s", a.code())
	}
	if a := b.writeUsing(lunB, 77, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "GOOD" {
		t.Errorf("token of another nexus: %s", a.code())
	}
	if !bytes.Equal(b.contents(t, lunB)[:4096], data[:4096]) {
		t.Error("wrong data")
	}
	// The loss of a nexus takes its reports, and no token.
	b.target.Detach(first)
	if n := len(b.manager.operations.byOwner); n != 1 {
		t.Errorf("%d owners of reports, want the second nexus alone", n)
	}
	if a := b.writeUsing(lunB, 78, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "GOOD" {
		t.Errorf("token after its nexus was lost: %s", a.code())
	}
}

func TestOperations_LogicalUnitReset(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 8})
	tokenB := b.token(t, lunB, rangeOf{0, 8})
	b.target.ResetLU(b.nexus, [8]byte{0, lunA})
	b.clearAttentions(b.nexus, lunA)
	if a := b.rodTokenInformation(lunA, 77, 805); a.code() != "5/24/00" {
		t.Errorf("report after the reset: %s", a.code())
	}
	if a := b.rodTokenInformation(lunB, 77, 805); a.code() != "GOOD" {
		t.Errorf("report of the other logical unit: %s", a.code())
	}
	for _, tok := range [][]byte{token, tokenB} {
		if a := b.writeUsing(lunA, 1, writeParameters(tok, 0, rangeOf{8, 8})); a.code() != "GOOD" {
			t.Errorf("token after the reset: %s", a.code())
		}
	}
	b.token(t, lunA, rangeOf{0, 8})
}

func TestReports_KeepTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, tokens.Limits{})
		token := b.token(t, lunA, rangeOf{0, 8})
		time.Sleep(keepReport - time.Second)
		if a := b.rodTokenInformation(lunA, 77, 805); a.code() != "GOOD" {
			t.Errorf("%s", a.code())
		}
		if a := b.writeUsing(lunA, 77, writeParameters(token, 0, rangeOf{8, 8})); a.code() != "GOOD" {
			t.Errorf("%s", a.code())
		}
		time.Sleep(keepReport - time.Second)
		if a := b.rodTokenInformation(lunA, 77, 805); a.code() != "GOOD" {
			t.Errorf("the report that replaced another went with it: %s", a.code())
		}
		time.Sleep(2 * time.Second)
		if a := b.rodTokenInformation(lunA, 77, 805); a.code() != "5/24/00" {
			t.Errorf("%s", a.code())
		}
	})
}

func TestReports_Bound(t *testing.T) {
	b := start(t, tokens.Limits{})
	for id := range uint32(maxReports + 10) {
		b.writeUsing(lunA, id, writeParameters(nil, 0, rangeOf{0, 1}))
	}
	owned := b.manager.operations.byOwner[owner{b.target.LU(lunA), b.nexus}]
	if len(owned.byID) != maxReports || len(owned.finished) != maxReports {
		t.Errorf("%d reports in %d places", len(owned.byID), len(owned.finished))
	}
	if a := b.rodTokenInformation(lunA, 9, 805); a.code() != "5/24/00" {
		t.Errorf("the oldest: %s", a.code())
	}
	if a := b.rodTokenInformation(lunA, 10, 805); a.code() != "GOOD" {
		t.Errorf("the oldest of those kept: %s", a.code())
	}
}

// The reports of all have a bound: who has most loses the oldest, and held data with them.
func TestReports_AllBound(t *testing.T) {
	o := newOperations()
	finish := func(by owner, id uint32) {
		op := &operation{owner: by, listID: id, identified: true}
		if err := o.add(op); err != nil {
			t.Fatal(err)
		}
		o.finish(op, report{held: []byte{1}})
	}
	modest := owner{nexus: &scsi.Nexus{}}
	finish(modest, 1)
	var greedy []owner
	for range maxAllReports/maxReports + 2 {
		by := owner{nexus: &scsi.Nexus{}}
		greedy = append(greedy, by)
		for id := range uint32(maxReports) {
			finish(by, id)
		}
	}
	if o.reports != maxAllReports || o.holding != maxAllHolding {
		t.Errorf("%d reports, %d with held data; want %d and %d", o.reports, o.holding, maxAllReports, maxAllHolding)
	}
	if r, ok := o.report(modest, 1); !ok || len(r.held) == 0 {
		t.Errorf("who has one report lost it or its data: %v", ok)
	}
	if op := o.byOwner[modest].byID[1]; op.work != nil || op.ctx != nil {
		t.Error("an operation that has ended keeps what it worked with")
	}
	for _, by := range append(greedy, modest) {
		o.dropNexus(by)
	}
	if o.reports != 0 || o.holding != 0 {
		t.Errorf("%d reports, %d with held data, after the end of all nexuses", o.reports, o.holding)
	}
}

// While a command runs, its list identifier is in use and its status is reported.
func TestListIdentifier_InUse(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 8})
	entered, proceed := make(chan struct{}), make(chan struct{})
	b.store.FailWith(func(op string) error {
		if op == "Map" {
			entered <- struct{}{}
			<-proceed
		}
		return nil
	})
	done := make(chan answer)
	go func() { done <- b.writeUsing(lunB, 5, writeParameters(token, 0, rangeOf{0, 1})) }()
	<-entered
	for _, a := range []answer{
		b.writeUsing(lunB, 5, writeParameters(token, 0, rangeOf{1, 1})),
		b.populate(lunB, 5, populateParameters(rangeOf{0, 1})),
	} {
		if a.code() != "5/00/16" {
			t.Errorf("second operation: %s", a.code())
		}
	}
	p := b.rodTokenInformation(lunB, 5, 805).data
	if len(p) != 36 || p[4] != 0x11 || p[5] != 0x11 || binary.BigEndian.Uint32(p[8:]) >= 0xFFFFFFFE {
		t.Errorf("report of the running operation % x", p)
	}
	if a := b.populate(lunA, 5, populateParameters(rangeOf{0, 1})); a.code() != "GOOD" {
		t.Errorf("the same identifier at another logical unit: %s", a.code())
	}
	b.store.FailWith(nil) // for those that follow: the Map that runs waits on
	reset := make(chan struct{})
	go func() {
		b.target.ResetLU(b.nexus, [8]byte{0, lunB})
		close(reset)
	}()
	select {
	case <-reset:
		t.Error("the reset did not wait for the copy that it aborts")
	case proceed <- struct{}{}:
	}
	<-reset
	<-done // any status: the initiator ignores that of an aborted command
	b.clearAttentions(b.nexus, lunB)
	if a := b.rodTokenInformation(lunB, 5, 805); a.code() != "5/24/00" {
		t.Errorf("report of an operation that the reset dropped: %s", a.code())
	}
}

// Write-through makes a copy durable before it is GOOD, as it does a write.
func TestWriteUsingToken_WriteThrough(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 8})
	flushes := 0
	b.store.FailWith(func(op string) error {
		if op == "Flush" {
			flushes++
		}
		return nil
	})
	b.writeUsing(lunA, 1, writeParameters(token, 0, rangeOf{8, 8}))
	if flushes != 0 {
		t.Errorf("%d flushes with the write cache on", flushes)
	}
	b.writeThrough(t, lunA)
	if !b.target.LU(lunA).WriteThrough() {
		t.Fatal("the write cache is still on")
	}
	flushes = 0
	if a := b.writeUsing(lunA, 1, writeParameters(token, 0, rangeOf{8, 8})); a.code() != "GOOD" || flushes != 1 {
		t.Errorf("%s, %d flushes", a.code(), flushes)
	}
}

// The token has its creator in the layout of SPC-4, for tools that show it.
func TestPopulateToken_Creator(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunB, rangeOf{0, 2}, rangeOf{9, 1})
	naa, capacity := b.target.LU(lunB).NAA(), b.target.LU(lunB).ReadCapacity16()
	if !bytes.Equal(token[24:40], naa[:]) || token[16] != 0xE4 || token[21] != 0x03 || token[23] != 16 {
		t.Errorf("creator % x", token[16:48])
	}
	if got := binary.BigEndian.Uint64(token[56:]); got != 3*4096 {
		t.Errorf("NUMBER OF BYTES REPRESENTED %d", got)
	}
	if !bytes.Equal(token[96:120], capacity[8:]) || binary.BigEndian.Uint32(token[96:]) != 4096 {
		t.Errorf("device type specific data % x", token[96:128])
	}
	if got := string(bytes.TrimRight(token[132:164], "\x00")); got != b.target.Name() {
		t.Errorf("target device %q", got)
	}
	info := b.tokens.List()
	if len(info) != 1 || info[0].Creator != (tokens.Creator{Initiator: "iqn.2026-11.example:host", Target: b.target.Name(), Volume: "volume1"}) {
		t.Errorf("%+v", info)
	}
}

// REPORT SUPPORTED OPERATION CODES and page 8Fh say the same.
func TestInstall_ReportedCommands(t *testing.T) {
	b := start(t, tokens.Limits{})
	a := b.send(ctx, b.nexus, lunA, []byte{0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0}, nil)
	actions := map[byte][]byte{}
	for p := a.data[4:]; len(p) >= 8; p = p[8:] {
		if p[0] == 0x83 || p[0] == 0x84 {
			actions[p[0]] = append(actions[p[0]], p[3])
		}
	}
	page := b.send(ctx, b.nexus, lunA, []byte{0x12, 0x01, 0x8F, 4, 0, 0}, nil).data
	list := descriptors(t, page[4:])[0x0001][5:]
	for _, code := range []byte{0x83, 0x84} {
		if list[0] != code || !bytes.Equal(list[2:2+list[1]], actions[code]) {
			t.Errorf("%02Xh: page 8Fh % x, REPORT SUPPORTED OPERATION CODES % x", code, list, actions[code])
		}
		list = list[2+list[1]:]
	}
	one := b.send(ctx, b.nexus, lunA, []byte{0xA3, 0x0C, 0x02, 0x83, 0, 0x11, 0, 0, 0, 64, 0, 0}, nil).data
	if len(one) != 20 || one[1] != 0x03 || one[4] != 0x83 || one[5] != 0x11 {
		t.Errorf("WRITE USING TOKEN: % x", one)
	}
	for _, cdb := range [][]byte{copyOutCDB(0x1E, 0, 0), copyInCDB(0x1F, 0, 0)} {
		if a := b.send(ctx, b.nexus, lunA, cdb, nil); a.code() != "5/20/00" {
			t.Errorf("service action %02Xh of %02Xh: %s", cdb[1], cdb[0], a.code())
		}
	}
}

func TestInstall_Twice(t *testing.T) {
	b := start(t, tokens.Limits{})
	if err := b.manager.Install(b.target.LU(lunA), "again"); err == nil {
		t.Error("the commands were installed a second time")
	}
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: b.store.NewVolume("x", unitBytes)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.manager.Install(lu, "x"); err != nil {
		t.Error(err)
	}
}
