package copymgr

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"odx/tokens"
)

// initiator sends random commands to a testbed and applies them to a model: each
// logical unit is its bytes, each token the bytes that it represents.
type initiator struct {
	*testbed
	units  [3][]byte
	tokens []heldToken
	listID uint32
	// touched is the logical unit that the last command may have changed.
	touched int
	scratch [unitBytes]byte
}

// current returns the contents of a logical unit, until the next call.
func (i *initiator) current(t *rapid.T, lun int) []byte {
	if err := i.volumes[lun].ReadAt(ctx, i.scratch[:], 0); err != nil {
		t.Fatal(err)
	}
	return i.scratch[:]
}

type heldToken struct {
	token   []byte
	model   []byte
	deleted bool
}

func (i *initiator) drawUnit(t *rapid.T) (lun int, blockLength uint64) {
	lun = rapid.IntRange(lunA, lunOutside).Draw(t, "lun")
	i.touched = lun
	return lun, uint64(i.target.LU(uint16(lun)).LogicalBlockLength())
}

// drawRanges returns ranges that do not overlap, in any order.
func drawRanges(t *rapid.T, blockLength uint64) []rangeOf {
	n := rapid.IntRange(1, 4).Draw(t, "ranges")
	part := unitBytes / blockLength / uint64(n)
	var ranges []rangeOf
	for k := range n {
		first := rapid.Uint64Range(0, part-1).Draw(t, "first")
		blocks := rapid.Uint64Range(0, min(part-first, 16*4096/blockLength)).Draw(t, "blocks")
		ranges = append(ranges, rangeOf{uint64(k)*part + first, uint32(blocks)})
	}
	return rapid.Permutation(ranges).Draw(t, "order")
}

func (i *initiator) write(t *rapid.T) {
	lun, blockLength := i.drawUnit(t)
	lba := rapid.Uint64Range(0, unitBytes/blockLength-1).Draw(t, "lba")
	blocks := rapid.Uint64Range(1, min(unitBytes/blockLength-lba, 32)).Draw(t, "blocks")
	p := make([]byte, blocks*blockLength)
	seed := rapid.Byte().Draw(t, "byte")
	for k := range p {
		p[k] = seed + byte(k>>9)
	}
	cdb := make([]byte, 16)
	cdb[0] = 0x8A // WRITE(16)
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], uint32(blocks))
	if a := i.send(ctx, i.nexus, lun, cdb, p); a.code() != "GOOD" {
		t.Fatalf("WRITE(16): %s", a.code())
	}
	copy(i.units[lun][lba*blockLength:], p)
}

func (i *initiator) populateToken(t *rapid.T) {
	lun, blockLength := i.drawUnit(t)
	ranges := drawRanges(t, blockLength)
	var model []byte
	for _, r := range ranges {
		model = append(model, i.units[lun][r.lba*blockLength:][:uint64(r.blocks)*blockLength]...)
	}
	i.listID++
	parameters := populateParameters(ranges...)
	inBackground := rapid.IntRange(0, 3).Draw(t, "IMMED") == 0
	if inBackground {
		parameters[2] |= 1
	}
	if a := i.testbed.populate(lun, i.listID, parameters); a.code() != "GOOD" {
		t.Fatalf("POPULATE TOKEN: %s", a.code())
	}
	if inBackground {
		i.await(lun, i.listID)
	}
	p := i.rodTokenInformation(lun, i.listID, 805).data
	if got := binary.BigEndian.Uint64(p[16:]); got*blockLength != uint64(len(model)) {
		t.Fatalf("TRANSFER COUNT %d blocks, want %d bytes", got, len(model))
	}
	if len(model) > 0 {
		i.tokens = append(i.tokens, heldToken{token: bytes.Clone(p[38:]), model: model})
	}
}

func (i *initiator) writeUsingToken(t *rapid.T) {
	if len(i.tokens) == 0 {
		t.Skip("no tokens")
	}
	held := &i.tokens[rapid.IntRange(0, len(i.tokens)-1).Draw(t, "token")]
	lun, blockLength := i.drawUnit(t)
	ranges := drawRanges(t, blockLength)
	offset := rapid.Uint64Range(0, uint64(len(held.model))/blockLength+1).Draw(t, "offset")
	parameters := writeParameters(held.token, offset, ranges...)
	del := rapid.IntRange(0, 7).Draw(t, "DEL_TKN") == 0
	if del {
		parameters[2] = 0x02
	}
	inBackground := rapid.IntRange(0, 3).Draw(t, "IMMED") == 0
	if inBackground {
		parameters[2] |= 1
	}
	var asked, count uint64
	for _, r := range ranges {
		asked += uint64(r.blocks)
	}
	i.listID++
	a := i.testbed.writeUsing(lun, i.listID, parameters)
	if inBackground && a.code() == "GOOD" {
		a = i.outcome(lun, i.listID)
	}
	switch {
	case held.deleted:
		wantCode(t, a, "5/23/09")
		return
	case offset*blockLength >= uint64(len(held.model)):
		wantCode(t, a, "5/26/00")
		return
	case a.code() == "GOOD":
		count = asked
	default:
		wantCode(t, a, "A/0D/04")
		info, _ := a.information()
		if count = uint64(info); count >= asked {
			t.Fatalf("%d of %d blocks is no underrun", count, asked)
		}
	}
	rest := bytes.Clone(held.model[offset*blockLength:])
	if over := uint64(len(rest)) % blockLength; over != 0 {
		rest = append(rest, make([]byte, blockLength-over)...)
	}
	if count < asked && count*blockLength < uint64(len(rest)) {
		t.Fatalf("%d of %d blocks, the token has %d bytes more", count, asked, len(rest))
	}
	i.apply(t, lun, blockLength, ranges, rest, count)
	held.deleted = del
}

// outcome waits for a command in the background, and returns what it would have
// answered in the foreground.
func (i *initiator) outcome(lun int, listID uint32) answer {
	i.await(lun, listID)
	p := i.rodTokenInformation(lun, listID, 805).data
	return answer{status: p[12], sense: p[32 : 32+int(p[14])]}
}

// extendedCopy copies by up to three segments, one after the other.
func (i *initiator) extendedCopy(t *rapid.T) {
	n := rapid.IntRange(1, 3).Draw(t, "segments")
	first := rapid.IntRange(0, 1).Draw(t, "LID4") // also the number of the first CSCD descriptor
	var segments []segmentOf
	for range n {
		source := rapid.IntRange(lunA, lunOutside).Draw(t, "source")
		destination := rapid.IntRange(lunA, lunOutside).Draw(t, "destination")
		s := i.drawSegment(t, source, destination)
		s.source, s.destination = uint16(source+first), uint16(destination+first)
		segments = append(segments, s)
	}
	lun, _ := i.drawUnit(t)
	i.listID++
	parameters := lid1Parameters(byte(i.listID), 2, i.cscds(), segments...)
	if first == 1 {
		parameters = lid4Parameters(i.listID, 2, byte(rapid.IntRange(0, 1).Draw(t, "IMMED")), i.cscds(), segments...)
	}
	if a := i.testbed.extendedCopy(lun, byte(first), parameters); a.code() != "GOOD" {
		t.Fatalf("EXTENDED COPY: %s", a.code())
	}
	if first == 1 {
		i.await(lun, i.listID)
	}
	for _, s := range segments {
		i.check(t, int(s.destination)-first)
	}
}

// drawSegment returns a segment without the ids, and does it in the model.
func (i *initiator) drawSegment(t *rapid.T, source, destination int) segmentOf {
	sourceBlock := uint64(i.target.LU(uint16(source)).LogicalBlockLength())
	destinationBlock := uint64(i.target.LU(uint16(destination)).LogicalBlockLength())
	s := segmentOf{
		kind: 0x02, sourceLBA: rapid.Uint64Range(0, unitBytes/sourceBlock-1).Draw(t, "source LBA"),
		destinationLBA: rapid.Uint64Range(0, unitBytes/destinationBlock-1).Draw(t, "destination LBA"),
	}
	from, to := s.sourceLBA*sourceBlock, s.destinationLBA*destinationBlock
	if rapid.Bool().Draw(t, "bytes") {
		s.kind = 0x0A
		s.sourceOffset = uint16(rapid.Uint64Range(0, sourceBlock-1).Draw(t, "source offset"))
		s.destinationOffset = uint16(rapid.Uint64Range(0, destinationBlock-1).Draw(t, "destination offset"))
		from, to = from+uint64(s.sourceOffset), to+uint64(s.destinationOffset)
	}
	length := rapid.Uint64Range(0, min(unitBytes-from, unitBytes-to, 64<<10)).Draw(t, "length")
	if s.kind == 0x02 {
		length -= length % 4096 // fills blocks on both sides
		s.count = uint32(length / sourceBlock)
		if rapid.Bool().Draw(t, "DC") {
			s.flags, s.count = 0x02, uint32(length/destinationBlock)
		}
	} else {
		s.count = uint32(length)
	}
	copy(i.units[destination][to:to+length], bytes.Clone(i.units[source][from:from+length]))
	return s
}

// apply writes count blocks in the model. The data in the ranges after count is
// undefined after an underrun, and is copied from the logical unit.
func (i *initiator) apply(t *rapid.T, lun int, blockLength uint64, ranges []rangeOf, rest []byte, count uint64) {
	now := i.current(t, lun)
	for _, r := range ranges {
		n := min(count, uint64(r.blocks)) * blockLength
		at := i.units[lun][r.lba*blockLength:]
		copy(at[:n], rest)
		copy(at[n:uint64(r.blocks)*blockLength], now[r.lba*blockLength+n:])
		rest, count = rest[n:], count-n/blockLength
	}
}

func wantCode(t *rapid.T, a answer, want string) {
	if a.code() != want {
		t.Fatalf("%s, want %s", a.code(), want)
	}
}

func (i *initiator) check(t *rapid.T, lun int) {
	if !bytes.Equal(i.current(t, lun), i.units[lun]) {
		t.Fatalf("LUN %d differs from the model", lun)
	}
}

// Whatever is written, read and copied in whatever order, at any alignment and
// between any block lengths, a token gives the bytes of its point in time.
func TestCopy_Model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newTestbed(t, tokens.Limits{})
		defer func() {
			if err := b.manager.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if err := b.tokens.Close(); err != nil {
				t.Fatal(err)
			}
		}()
		i := &initiator{testbed: b}
		for lun := range i.units {
			i.units[lun] = make([]byte, unitBytes)
		}
		t.Repeat(map[string]func(*rapid.T){
			"write":           i.write,
			"populateToken":   i.populateToken,
			"writeUsingToken": i.writeUsingToken,
			"extendedCopy":    i.extendedCopy,
			"":                func(t *rapid.T) { i.check(t, i.touched) },
		})
		for lun := range i.units {
			i.check(t, lun)
		}
	})
}
