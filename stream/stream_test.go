package stream

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"odx/internal/kit/must"
)

// aHeader is one of an incremental stream.
func aHeader(size int64) Header {
	return Header{
		Store: ID{1, 2}, Volume: ID{3}, VolumeName: "data", Snapshot: ID{5}, SnapshotName: "data-tuesday", Base: ID{7}, BaseName: "data-monday",
		Size: size, BaseSize: size / 2, Created: time.Unix(1_700_000_000, 0).UTC(),
	}
}

// write returns the stream of records.
func write(t testing.TB, h Header, level Level, records []Record) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, h, level)
	must.Succeed(t, err)
	for _, r := range records {
		if r.Data == nil {
			must.Succeed(t, w.Hole(r.Offset, r.Length))
		} else {
			must.Succeed(t, w.Data(r.Offset, r.Data))
		}
	}
	totals, err := w.Close()
	must.Succeed(t, err)
	if totals.StreamBytes != int64(b.Len()) {
		t.Errorf("the writer counts %d bytes, and wrote %d", totals.StreamBytes, b.Len())
	}
	return b.Bytes()
}

// read returns the header and the records of a stream, adjoining ones joined.
func read(r io.Reader) (h Header, records []Record, err error) {
	s, err := NewReader(r)
	if err != nil {
		return h, nil, err
	}
	defer s.Close()
	for {
		rec, err := s.Next()
		if err == io.EOF {
			return s.Header(), records, nil
		}
		if err != nil {
			return s.Header(), records, err
		}
		if n := len(records); n > 0 && records[n-1].End() == rec.Offset && (records[n-1].Data == nil) == (rec.Data == nil) {
			records[n-1].Length += rec.Length
			records[n-1].Data = append(records[n-1].Data, rec.Data...)
			continue
		}
		rec.Data = bytes.Clone(rec.Data)
		records = append(records, rec)
	}
}

func sameRecords(a, b []Record) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Offset != b[i].Offset || a[i].Length != b[i].Length || !bytes.Equal(a[i].Data, b[i].Data) || (a[i].Data == nil) != (b[i].Data == nil) {
			return false
		}
	}
	return true
}

// randomBytes returns bytes that do not compress, or that do.
func randomBytes(rnd *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	if rnd.IntN(2) == 0 {
		for i := range p {
			p[i] &= 3
		}
	}
	return p
}

// randomRecords returns records of a content, which adjoin each other only in kind.
func randomRecords(rnd *rand.Rand, size int64) (records []Record) {
	for off := int64(0); ; {
		off += int64(rnd.IntN(8)+1) * BlockLength
		if off >= size {
			return records
		}
		length := min(int64(rnd.IntN(200)+1)*BlockLength, size-off)
		r := Record{Offset: off, Length: length}
		if rnd.IntN(3) > 0 {
			r.Data = randomBytes(rnd, int(length))
		}
		records = append(records, r)
		off += length
	}
}

func TestStream_RoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 10 {
		h := aHeader(int64(rnd.IntN(4<<20)) + 1)
		level := Level(i % 5)
		records := randomRecords(rnd, h.Size)
		got, found, err := read(bytes.NewReader(write(t, h, level, records)))
		if err != nil || got != h || !sameRecords(found, records) {
			t.Fatalf("%d, level %v: %v; header %+v, want %+v; %d records, want %d", i, level, err, got, h, len(found), len(records))
		}
	}
}

// A stream of changes costs little more than what has changed.
func TestStream_Overhead(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	h := aHeader(1 << 30)
	var records []Record
	for i := range 1000 {
		p := make([]byte, BlockLength)
		for j := range p {
			p[j] = byte(rnd.Uint32())
		}
		records = append(records, Record{Offset: int64(i) * 3 * BlockLength, Length: BlockLength, Data: p})
	}
	n := len(write(t, h, None, records))
	if most := 1000 * BlockLength * 101 / 100; n > most {
		t.Errorf("1000 scattered blocks take %d bytes, more than %d", n, most)
	}
}

// small are small streams of each kind, by name, and how each is opened.
func small(t testing.TB) map[string][]byte {
	h := aHeader(20*BlockLength + 100)
	text := bytes.Repeat([]byte("what compresses well. "), 400)[:2*BlockLength]
	records := []Record{
		{Offset: 0, Length: BlockLength, Data: text[:BlockLength]}, {Offset: 4 * BlockLength, Length: 3 * BlockLength},
		{Offset: 20 * BlockLength, Length: 100, Data: text[:100]},
	}
	plain, packed := write(t, h, None, records), write(t, h, Default, records)
	return map[string][]byte{"plain": plain, "zstd": packed, "encrypted": seal(t, packed), "empty": write(t, h, None, nil)}
}

var identity = func() *age.X25519Identity {
	id, err := age.ParseX25519Identity("AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU")
	if err != nil {
		panic(err)
	}
	return id
}()

func seal(t testing.TB, plain []byte) []byte {
	var b bytes.Buffer
	w, err := Seal(&b, []age.Recipient{identity.Recipient()})
	must.Succeed(t, err)
	_, err = w.Write(plain)
	must.Succeed(t, err)
	must.Succeed(t, w.Close())
	return b.Bytes()
}

// open reads a stream that may be encrypted.
func open(b []byte) error {
	r, err := Open(bytes.NewReader(b), []age.Identity{identity})
	if err != nil {
		return err
	}
	_, _, err = read(r)
	return err
}

// named reports whether an error is one that a caller can decide on.
func named(err error) bool {
	for _, kind := range []error{ErrFormat, ErrVersion, ErrTruncated, ErrDamaged, ErrSealed} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// Every byte counts: with any of them changed, in one bit or in all, no reader comes to the
// end.
func TestStream_EveryByte(t *testing.T) {
	for name, b := range small(t) {
		t.Run(name, func(t *testing.T) {
			must.Succeed(t, open(b))
			for i := range b {
				for _, mask := range []byte{1, 0x80, 0xff} {
					bad := bytes.Clone(b)
					bad[i] ^= mask
					if err := open(bad); !named(err) {
						t.Fatalf("byte %d of %d changed by %#x: %v", i, len(b), mask, err)
					}
				}
			}
		})
	}
}

func TestStream_Truncated(t *testing.T) {
	for name, b := range small(t) {
		t.Run(name, func(t *testing.T) {
			for n := range len(b) {
				err := open(b[:n])
				if !named(err) || name != "encrypted" && !errors.Is(err, ErrTruncated) {
					t.Fatalf("%d of %d bytes: %v", n, len(b), err)
				}
			}
			if err := open(append(bytes.Clone(b), 0)); !errors.Is(err, ErrDamaged) {
				t.Errorf("a byte more: %v", err)
			}
		})
	}
}

// fixed returns b with right checksums of the header and of the first frame, so that only
// their meaning is refused.
func fixed(b []byte) []byte {
	if len(b) < fixedLength {
		return b
	}
	n := fixedLength + int(binary.BigEndian.Uint32(b[12:]))
	if n+4 > len(b) {
		return b
	}
	binary.BigEndian.PutUint32(b[n:], checksum(b[:n]))
	f := b[n+4:]
	if len(f) < frameHeader {
		return b
	}
	if stored := int(binary.BigEndian.Uint32(f[4:])); stored <= len(f)-frameHeader {
		binary.BigEndian.PutUint32(f[16:], checksum(f[:16], f[frameHeader:frameHeader+stored]))
	}
	return b
}

// What a later version could have written is refused by a sentence that says so.
func TestReader_LaterVersion(t *testing.T) {
	b := small(t)["plain"]
	head := fixedLength + int(binary.BigEndian.Uint32(b[12:])) + 4
	for name, change := range map[string]func(b []byte){
		"version":      func(b []byte) { b[9] = 2 },
		"flag":         func(b []byte) { b[10] = 0x40 },
		"block length": func(b []byte) { binary.BigEndian.PutUint32(b[fixedLength+96:], 8192) },
		"frame":        func(b []byte) { b[head] = 9 },
		"encoding":     func(b []byte) { b[head+1] = 7 },
		"reserved":     func(b []byte) { b[head+2] = 1 },
		"record":       func(b []byte) { b[head+frameHeader] = 5 },
	} {
		bad := bytes.Clone(b)
		change(bad)
		err := open(fixed(bad))
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "this program") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What contradicts itself is refused although its checksums are right.
func TestReader_Contradictions(t *testing.T) {
	b := small(t)["plain"]
	head := fixedLength + int(binary.BigEndian.Uint32(b[12:])) + 4
	rec := head + frameHeader
	size := func(n uint64) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint64(b[fixedLength+64:], n) }
	}
	for name, change := range map[string]func(b []byte){
		"size below zero":      size(1 << 63),
		"size beyond bounds":   size(MaxSize + 1),
		"made after 9999":      func(b []byte) { binary.BigEndian.PutUint64(b[fixedLength+80:], 253402300800) },
		"made before year 1":   func(b []byte) { binary.BigEndian.PutUint64(b[fixedLength+80:], 1<<63) },
		"start beyond size":    func(b []byte) { binary.BigEndian.PutUint64(b[fixedLength+88:], 21*BlockLength) },
		"not incremental":      func(b []byte) { b[11] = 0 },
		"base is snapshot":     func(b []byte) { copy(b[fixedLength+48:], b[fixedLength+32:fixedLength+48]) },
		"name too long":        func(b []byte) { b[fixedLength+100] = 0xff },
		"name too short":       func(b []byte) { b[fixedLength+101]-- },
		"name not UTF-8":       func(b []byte) { b[fixedLength+102] = 0xff },
		"header too short":     func(b []byte) { binary.BigEndian.PutUint32(b[12:], 20) },
		"header too long":      func(b []byte) { binary.BigEndian.PutUint32(b[12:], 1<<31) },
		"frame too long":       func(b []byte) { binary.BigEndian.PutUint32(b[head+4:], 1<<31) },
		"frame of nothing":     func(b []byte) { binary.BigEndian.PutUint32(b[head+8:], 0) },
		"raw length":           func(b []byte) { binary.BigEndian.PutUint32(b[head+8:], 100) },
		"record at odd offset": func(b []byte) { b[rec+8] = 1 },
		"record without data":  func(b []byte) { binary.BigEndian.PutUint32(b[rec+9:], 0) },
		"record too long":      func(b []byte) { binary.BigEndian.PutUint32(b[rec+9:], 1<<30) },
		"compressed, it says":  func(b []byte) { b[head+1] = encodingZstd },
	} {
		bad := bytes.Clone(b)
		change(bad)
		if err := open(fixed(bad)); !named(err) || errors.Is(err, ErrTruncated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// frames returns a stream of frames that are stored as given, with right checksums.
func frames(t *testing.T, h Header, encoding byte, raw int, stored ...[]byte) []byte {
	var b bytes.Buffer
	w, err := NewWriter(&b, h, None)
	must.Succeed(t, err)
	for _, p := range stored {
		must.Succeed(t, w.write(append(appendFrameHeader(nil, frameRecords, encoding, p, raw, w.totals.Frames), p...)))
		w.totals.Frames++
	}
	_, err = w.Close()
	must.Succeed(t, err)
	return b.Bytes()
}

// A frame that decompresses to much more than it says takes no memory for it.
func TestReader_Bomb(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	must.Succeed(t, err)
	defer encoder.Close()
	bomb := encoder.EncodeAll(make([]byte, 256<<20), nil)
	if len(bomb) > MaxFrame {
		t.Fatalf("%d bytes", len(bomb))
	}
	b := frames(t, aHeader(1<<40), encodingZstd, MaxFrame, bomb)
	r, err := NewReader(bytes.NewReader(b))
	must.Succeed(t, err)
	defer r.Close()
	if _, err := r.Next(); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	if cap(r.raw) > 4*MaxFrame || cap(r.records) > 4*MaxFrame {
		t.Errorf("it took %d bytes", cap(r.records))
	}
}

// Records that overlap, go back or go beyond the size are refused on both sides.
func TestStream_Order(t *testing.T) {
	h := aHeader(10*BlockLength + 100)
	for name, r := range map[string]Record{
		"back":     {Offset: BlockLength, Length: BlockLength},
		"beyond":   {Offset: 10 * BlockLength, Length: 101},
		"nothing":  {Offset: 4 * BlockLength},
		"odd":      {Offset: 4*BlockLength + 1, Length: BlockLength},
		"odd end":  {Offset: 4 * BlockLength, Length: 100},
		"negative": {Offset: 4 * BlockLength, Length: -BlockLength},
		"wraps":    {Offset: 4 * BlockLength, Length: 1<<63 - 1},
	} {
		w, err := NewWriter(io.Discard, h, None)
		must.Succeed(t, err)
		must.Succeed(t, w.Hole(2*BlockLength, BlockLength))
		if err := w.Hole(r.Offset, r.Length); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: the writer returned %v", name, err)
		}
		var p []byte
		for _, r := range []Record{{Offset: 2 * BlockLength, Length: BlockLength}, r} {
			at := len(p)
			p = append(p, recordHole)
			p = binary.BigEndian.AppendUint64(p, uint64(r.Offset))
			p = binary.BigEndian.AppendUint64(p, uint64(r.Length))
			p = binary.BigEndian.AppendUint32(p, checksum(p[at:]))
		}
		if err := open(frames(t, h, encodingPlain, len(p), p)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: the reader returned %v", name, err)
		}
	}
}

// A frame that is missing, doubled or exchanged is noticed by what the end says.
func TestReader_Frames(t *testing.T) {
	h := aHeader(10 * BlockLength)
	hole := func(off int64) []byte {
		var b bytes.Buffer
		w, err := NewWriter(&b, h, None)
		must.Succeed(t, err)
		head := b.Len()
		must.Succeed(t, w.Hole(off, BlockLength))
		must.Succeed(t, w.Flush())
		return b.Bytes()[head:]
	}
	whole := write(t, h, None, []Record{{Offset: 0, Length: BlockLength}})
	first := hole(0)
	at := bytes.Index(whole, first)
	if at < 0 {
		t.Fatal("the frame is not in the stream")
	}
	for name, b := range map[string][]byte{
		"missing":   append(bytes.Clone(whole[:at]), whole[at+len(first):]...),
		"more":      append(append(bytes.Clone(whole[:at+len(first)]), hole(2*BlockLength)...), whole[at+len(first):]...),
		"exchanged": append(append(bytes.Clone(whole[:at]), hole(BlockLength)...), whole[at+len(first):]...),
	} {
		if err := open(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpen_Refuses(t *testing.T) {
	other, err := age.GenerateX25519Identity()
	must.Succeed(t, err)
	s := small(t)
	for name, tt := range map[string]struct {
		b    []byte
		ids  []age.Identity
		want error
	}{
		"no identity":    {s["encrypted"], nil, ErrSealed},
		"another one":    {s["encrypted"], []age.Identity{other}, ErrSealed},
		"as text":        {[]byte("-----BEGIN AGE ENCRYPTED FILE-----\n"), []age.Identity{identity}, ErrFormat},
		"something else": {[]byte("conectix and more bytes than a header has"), nil, ErrFormat},
	} {
		r, err := Open(bytes.NewReader(tt.b), tt.ids)
		if err == nil {
			_, err = NewReader(r)
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	broken := errors.New("the network broke")
	r, err := Open(io.MultiReader(bytes.NewReader(s["encrypted"][:400]), failing{broken}), []age.Identity{identity})
	must.Succeed(t, err)
	if _, _, err := read(r); !errors.Is(err, broken) || named(err) {
		t.Errorf("a source that failed: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A writer whose destination fails stays failed: nothing after a gap is written.
func TestWriter_Fails(t *testing.T) {
	b := &limited{left: 300}
	w, err := NewWriter(b, aHeader(1<<30), None)
	must.Succeed(t, err)
	must.Succeed(t, w.Data(0, make([]byte, BlockLength)))
	if err := w.Flush(); err == nil {
		t.Error("the write of a frame succeeded")
	}
	b.left = 1 << 20
	if _, err := w.Close(); err == nil {
		t.Error("the end was written after a gap")
	}
}

type limited struct{ left int }

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("full")
	}
	return len(p), nil
}

// TestLayout holds the bytes of a stream, so that a change of the format is seen.
func TestLayout(t *testing.T) {
	h := aHeader(2*BlockLength + 3)
	h.Start = BlockLength
	got := hex.Dump(write(t, h, None, []Record{{Offset: BlockLength, Length: BlockLength}, {Offset: 2 * BlockLength, Length: 3, Data: []byte("end")}}))
	const name = "testdata/layout.txt"
	want, err := os.ReadFile(name)
	if err != nil || string(want) != got {
		t.Errorf("the stream is\n%s\n%s has\n%s(%v)", got, name, want, err)
	}
}

func FuzzReader(f *testing.F) {
	h := aHeader(100 * BlockLength)
	rnd := rand.New(rand.NewPCG(1, 2))
	for level := range Best {
		f.Add(write(f, h, level, []Record{{Offset: 0, Length: BlockLength, Data: randomBytes(rnd, BlockLength)}, {Offset: 2 * BlockLength, Length: BlockLength}}))
	}
	whole := small(f)["plain"]
	for _, n := range []int{0, 12, fixedLength, fixedLength + 3, len(whole) - 1} { // too short for a header, for a frame
		f.Add(whole[:n])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixed(bytes.Clone(b))} {
			s, err := NewReader(bytes.NewReader(b))
			if err != nil {
				if !named(err) {
					t.Fatalf("an error without a kind: %v", err)
				}
				continue
			}
			next := s.Header().Start
			for {
				r, err := s.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					if !named(err) {
						t.Fatalf("an error without a kind: %v", err)
					}
					break
				}
				if r.Offset < next || r.Length <= 0 || r.End() > s.Header().Size || r.Data != nil && int64(len(r.Data)) != r.Length {
					t.Fatalf("record %d, %d bytes, after %d", r.Offset, r.Length, next)
				}
				next = r.End()
			}
			s.Close()
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	p := randomBytes(rand.New(rand.NewPCG(4, 4)), 1<<20)
	for i := range p {
		p[i] &= 0x3f
	}
	for level := range Best {
		b.Run(fmt.Sprint(level), func(b *testing.B) {
			w, err := NewWriter(io.Discard, aHeader(MaxSize), level)
			must.Succeed(b, err)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if err := w.Data(off, p); err != nil {
					b.Fatal(err)
				}
				off += int64(len(p))
			}
		})
	}
}
