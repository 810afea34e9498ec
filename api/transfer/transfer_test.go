package transfer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// memory is a disk in memory that counts operations.
type memory struct {
	mu    sync.Mutex
	data  []byte
	block int

	reads, writes, zeroed int64 // bytes
	flushed               bool  // no write since the last flush
	failRead              error
}

func newMemory(size, block int) *memory { return &memory{data: make([]byte, size), block: block} }

func (m *memory) Close() error     { return nil }
func (m *memory) Size() int64      { return int64(len(m.data)) }
func (m *memory) BlockLength() int { return m.block }

func (m *memory) at(off int64, n int) []byte {
	if off%int64(m.block) != 0 || n%m.block != 0 {
		panic("not whole blocks")
	}
	return m.data[off : off+int64(n)]
}

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads += int64(len(p))
	copy(p, m.at(off, len(p)))
	return m.failRead
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushed = false
	m.writes += int64(len(p))
	copy(m.at(off, len(p)), p)
	return nil
}

func (m *memory) Zero(_ context.Context, off, length int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushed = false
	m.zeroed += length
	clear(m.at(off, int(length)))
	return nil
}

func (m *memory) Flush(context.Context) error {
	m.flushed = true
	return nil
}

// fill writes data to every second megabyte.
func (m *memory) fill() *memory {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(m.data); i += 2 << 20 {
		for j := i; j < min(i+1<<20, len(m.data)); j++ {
			m.data[j] = byte(rng.Uint32())
		}
	}
	return m
}

// offloading is a memory with tokens that are valid at disks of one copy manager and
// represent at most limit bytes.
type offloading struct {
	*memory
	tokens *map[string][]byte
	limit  int64
	// refuse is the number of writes with a token before they fail.
	refuse int
}

func (o *offloading) Populate(_ context.Context, off, length int64) (Token, int64, error) {
	length = min(length, o.limit)
	name := string(rune('a' + len(*o.tokens)))
	(*o.tokens)[name] = bytes.Clone(o.at(off, int(length)))
	return Token(name), length, nil
}

func (o *offloading) WriteUsing(_ context.Context, t Token, offset, off, length int64) (int64, error) {
	data, ok := (*o.tokens)[string(t)]
	if o.refuse--; !ok || o.refuse == -1 {
		return 0, errors.New("23/04")
	}
	n := copy(o.at(off, int(min(length, o.limit/2))), data[offset:])
	return int64(n), nil
}

func (o *offloading) Forget(_ context.Context, t Token) error {
	if _, ok := (*o.tokens)[string(t)]; !ok {
		return errors.New("23/04")
	}
	(*o.tokens)[string(t)] = nil // keeps token names unique
	return nil
}

// live returns the number of tokens not deleted.
func live(tokens map[string][]byte) (n int) {
	for _, data := range tokens {
		if data != nil {
			n++
		}
	}
	return n
}

func TestCopy(t *testing.T) {
	const size = 9<<20 + 4096
	ours, others := map[string][]byte{}, map[string][]byte{}
	offload := func(m *memory, tokens *map[string][]byte, refuse int) *offloading {
		return &offloading{memory: m, tokens: tokens, limit: 2 << 20, refuse: refuse}
	}
	for name, tt := range map[string]struct {
		src, dst       func(m *memory) Disk
		options        Options
		tokens         int64 // bytes
		reasonContains string
	}{
		"both in one store": {
			func(m *memory) Disk { return offload(m, &ours, 0) }, func(m *memory) Disk { return offload(m, &ours, -2) }, Options{},
			size, "",
		},
		"in two stores": {
			func(m *memory) Disk { return offload(m, &ours, 0) }, func(m *memory) Disk { return offload(m, &others, -2) }, Options{},
			0, "write with a token: 23/04",
		},
		"fails midway": {
			func(m *memory) Disk { return offload(m, &ours, 0) }, func(m *memory) Disk { return offload(m, &ours, 3) }, Options{},
			3 << 20, "write with a token: 23/04",
		},
		"only the source": {
			func(m *memory) Disk { return offload(m, &ours, 0) }, func(m *memory) Disk { return m }, Options{},
			0, "the destination takes no tokens",
		},
		"neither": {
			func(m *memory) Disk { return m }, func(m *memory) Disk { return m }, Options{},
			0, "the source makes no tokens",
		},
		"disabled": {
			func(m *memory) Disk { return offload(m, &ours, 0) }, func(m *memory) Disk { return offload(m, &ours, -2) }, Options{WithoutTokens: true},
			0, "tokens were not wanted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := newMemory(size, 512).fill(), newMemory(size+8192, 4096)
			for i := range dst.data {
				dst.data[i] = 0xee
			}
			var last Progress
			tt.options.Progress = func(p Progress) { last = p }
			r, err := Copy(t.Context(), tt.dst(dst), tt.src(src), tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(dst.data[:size], src.data) || dst.data[size] != 0xee || !dst.flushed {
				t.Errorf("the copy is not equal (%v), is longer, or is not flushed (%v)", bytes.Equal(dst.data[:size], src.data), dst.flushed)
			}
			if r.Bytes != size || r.TokenBytes != tt.tokens || r.MovedBytes != dst.writes || src.reads != size-tt.tokens || r.TokenBytes+r.MovedBytes+dst.zeroed != size {
				t.Errorf("%+v; read %d, wrote %d, made %d zeros", r, src.reads, dst.writes, dst.zeroed)
			}
			if n := live(ours) + live(others); n != 0 {
				t.Errorf("%d tokens are left", n)
			}
			if !strings.Contains(r.Reason, tt.reasonContains) || (tt.reasonContains == "") != (r.Reason == "") {
				t.Errorf("reason %q", r.Reason)
			}
			if last.DoneBytes != size || last.TotalBytes != size || last.MovedBytes != r.MovedBytes {
				t.Errorf("progress ended at %+v", last)
			}
		})
	}
}

func TestCopy_Errors(t *testing.T) {
	if _, err := Copy(t.Context(), newMemory(4096, 512), newMemory(8192, 512), Options{}); !errors.Is(err, ErrTooSmall) {
		t.Errorf("small destination: %v", err)
	}
	if _, err := Copy(t.Context(), newMemory(8192, 4096), newMemory(512, 512), Options{}); err == nil {
		t.Error("part of a block of the destination: no error")
	}
	broken := newMemory(4<<20, 512).fill()
	broken.failRead = errors.New("broken")
	if _, err := Copy(t.Context(), newMemory(4<<20, 512), broken, Options{}); !errors.Is(err, broken.failRead) {
		t.Errorf("source fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Copy(ctx, newMemory(4<<20, 512), newMemory(4<<20, 512), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

func TestCopy_File(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "src")
	want := newMemory(6<<20+100, 1).fill().data
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	// To blocks: the last one is padded with zeros.
	dst := newMemory(8<<20, 4096)
	for i := range dst.data {
		dst.data[i] = 0xee
	}
	if r, err := Copy(t.Context(), dst, src, Options{}); err != nil || r.Bytes != 6<<20+4096 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := dst.data[:6<<20+4096]; !bytes.Equal(got, append(bytes.Clone(want), make([]byte, 4096-100)...)) {
		t.Error("blocks differ from the file")
	}
	// And back to a file with other contents.
	back := filepath.Join(dir, "dst")
	if err := os.WriteFile(back, bytes.Repeat([]byte{1}, 9<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := CreateFile(back, dst.Size(), Overwrite)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), out, dst, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, dst.data) {
		t.Errorf("file differs from the blocks: %v", err)
	}
	if _, err := OpenFile(dir); err == nil {
		t.Error("OpenFile of a directory succeeds")
	}
	if _, err := OpenFile(os.DevNull); err == nil {
		t.Error("OpenFile of a character device succeeds")
	}
}
