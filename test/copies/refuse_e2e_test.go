//go:build e2e

package copies

import (
	"bytes"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/tokenclient"
)

// TestThirdPartyCopyPage checks what VPD page 8Fh promises.
func TestThirdPartyCopyPage(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib})
	d := b.disks[0]

	a, err := d.Command([]byte{0x12, 0, 0, 0, 96, 0}, nil, 96)
	good(t, a, err)
	if a.Data[5]&0x08 == 0 {
		t.Error("standard INQUIRY data: 3PC is not set")
	}
	a, err = d.Command([]byte{0x12, 1, 0, 0, 255, 0}, nil, 255)
	good(t, a, err)
	pages := a.Data[4:]
	if !bytes.Contains(pages, []byte{0x8f}) {
		t.Errorf("page 8Fh is not among % x", pages)
	}
	for i := 1; i < len(pages); i++ {
		if pages[i] <= pages[i-1] {
			t.Errorf("pages are not in ascending order: % x", pages)
		}
	}

	descriptors, err := d.ThirdPartyCopyPage()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint16][]byte{}
	for i, x := range descriptors {
		if i > 0 && x.Type <= descriptors[i-1].Type {
			t.Errorf("descriptor %04Xh comes after %04Xh", x.Type, descriptors[i-1].Type)
		}
		seen[x.Type] = x.Body
	}
	if descriptors[0].Type != 0x0000 || len(descriptors[0].Body) != 32 {
		t.Errorf("the first descriptor is %04Xh of %d bytes, Windows wants 0000h of 32", descriptors[0].Type, len(descriptors[0].Body))
	}
	for _, want := range []uint16{0x0001, 0x0106, 0x0108, 0x8001} {
		if seen[want] == nil {
			t.Errorf("no descriptor %04Xh", want)
		}
	}
	for op, action := range map[byte][]byte{0x83: {0x10, 0x11}, 0x84: {0x07}} {
		for _, sa := range action {
			if !supports(seen[0x0001], op, sa) {
				t.Errorf("supported commands descriptor lacks %02Xh/%02Xh", op, sa)
			}
		}
	}
	limits, err := d.Limits()
	if err != nil {
		t.Fatal(err)
	}
	if limits.OptimalBlocks > limits.TransferBlocks || limits.Ranges == 0 {
		t.Errorf("limits contradict each other: %+v", limits)
	}
}

// supports looks an operation up in the supported commands descriptor.
func supports(body []byte, op, action byte) bool {
	if len(body) == 0 || len(body) < 1+int(body[0]) {
		return false
	}
	for list := body[1 : 1+int(body[0])]; len(list) >= 2 && len(list) >= 2+int(list[1]); list = list[2+int(list[1]):] {
		if list[0] == op && bytes.IndexByte(list[2:2+int(list[1])], action) >= 0 {
			return true
		}
	}
	return false
}

// TestInvalidTokens hands in tokens that must not work, and checks that none
// of them moved data.
func TestInvalidTokens(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib}, kit.LUN{Size: 16 * mib})
	src, dst := b.disks[0], b.disks[1]
	b.fill(src, at(0, 4096))
	b.fill(dst, at(0, 4096))
	to := at(0, 4000)

	t.Run("altered", func(t *testing.T) {
		token, rod := src.populate(tokenclient.PopulateOptions{}, at(0, 4000))
		// Any bit counts. The type and length fields have their own codes.
		for at := 8; at < tokenclient.TokenLength; at += 7 {
			bad := bytes.Clone(token)
			bad[at] ^= 1 << b.rand.IntN(8)
			a, err := dst.WriteUsingToken(bad, tokenclient.WriteTokenOptions{}, to)
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != tokenclient.CheckCondition || a.Sense.Key != 0x5 || a.Sense.ASC != 0x23 {
				t.Errorf("byte %d altered: %v, want 5/23/xx", at, a)
			}
		}
		dst.verifyAll()
		dst.spend(token, rod, tokenclient.WriteTokenOptions{}, to)
	})
	t.Run("length", func(t *testing.T) {
		token, _ := src.populate(tokenclient.PopulateOptions{}, at(0, 4000))
		token[7]++
		a, err := dst.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, to)
		refused(t, a, err, 0x5, 0x23, 0x0a)
	})
	t.Run("type", func(t *testing.T) {
		token, _ := src.populate(tokenclient.PopulateOptions{}, at(0, 4000))
		copy(token, []byte{0x12, 0x34, 0x56, 0x78})
		a, err := dst.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, to)
		if err != nil || a.Status != tokenclient.CheckCondition || a.Sense.Key != 0x5 || a.Sense.ASC != 0x23 {
			t.Fatalf("%v, %v, want 5/23/xx", a, err)
		}
	})
	t.Run("never made", func(t *testing.T) {
		token := make([]byte, tokenclient.TokenLength)
		b.data.Read(token)
		copy(token, []byte{0x00, 0x80, 0x00, 0x00, 0, 0, 0x01, 0xf8})
		a, err := dst.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, to)
		if err != nil || a.Status != tokenclient.CheckCondition || a.Sense.Key != 0x5 || a.Sense.ASC != 0x23 {
			t.Fatalf("%v, %v, want 5/23/xx", a, err)
		}
		// It is no secret why: the client can ask for the reason.
		info, a, err := dst.TokenInformation()
		good(t, a, err)
		if info.ServiceAction != 0x11 || info.OperationStatus == 0x01 || info.TransferCount != 0 {
			t.Errorf("token information after a refused token: %+v", info)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		token, rod := src.populate(tokenclient.PopulateOptions{}, at(0, 4000))
		dst.spend(token, rod, tokenclient.WriteTokenOptions{Delete: true}, to)
		a, err := dst.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, to)
		refused(t, a, err, 0x5, 0x23, 0x09)
	})
	t.Run("deleted without writing", func(t *testing.T) {
		token, rod := src.populate(tokenclient.PopulateOptions{}, at(0, 4000))
		dst.spend(token, rod, tokenclient.WriteTokenOptions{Delete: true}, at(0, 0))
		a, err := dst.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, to)
		refused(t, a, err, 0x5, 0x23, 0x09)
	})
	t.Run("expired", func(t *testing.T) {
		token, _ := src.populate(tokenclient.PopulateOptions{Timeout: 1}, at(8, 8))
		// Every use restarts the timeout of a second, so check only after it.
		<-time.After(2500 * time.Millisecond)
		a, err := dst.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, at(0, 8))
		refused(t, a, err, 0x5, 0x23, 0x07)
	})
	dst.verifyAll()
}

// TestBadParameters sends parameter lists that the standard refuses.
func TestBadParameters(t *testing.T) {
	b := newBench(t, kit.LUN{Size: 16 * mib})
	d := b.disks[0]
	b.fill(d, at(0, 4096))
	limits, err := d.Limits()
	if err != nil {
		t.Fatal(err)
	}
	many := make([]rng, int(limits.Ranges)+1)
	for i := range many {
		many[i] = at(uint64(8*i), 1)
	}
	token, rod := d.populate(tokenclient.PopulateOptions{}, at(0, 100))
	type sense struct{ key, asc, ascq byte }
	for _, c := range []struct {
		name   string
		ranges []rng
		want   sense
	}{
		{"overlapping ranges", []rng{at(0, 8), at(100, 8), at(107, 2)}, sense{0x5, 0x26, 0x00}},
		{"beyond the end", []rng{at(d.Blocks-7, 8)}, sense{0x5, 0x21, 0x00}},
		{"far beyond the end", []rng{at(1<<63, 8)}, sense{0x5, 0x21, 0x00}},
		{"overflow", []rng{at(1<<64-1, 8)}, sense{0x5, 0x21, 0x00}},
		{"too many ranges", many, sense{0x5, 0x26, 0x08}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := d.PopulateToken(tokenclient.PopulateOptions{}, c.ranges...)
			refused(t, a, err, c.want.key, c.want.asc, c.want.ascq)
			a, err = d.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, c.ranges...)
			refused(t, a, err, c.want.key, c.want.asc, c.want.ascq)
		})
	}
	t.Run("timeout over the maximum", func(t *testing.T) {
		a, err := d.PopulateToken(tokenclient.PopulateOptions{Timeout: limits.MaxInactivity + 1}, at(0, 8))
		refused(t, a, err, 0x5, 0x26, 0x00)
	})
	t.Run("access upon reference type", func(t *testing.T) {
		a, err := d.PopulateToken(tokenclient.PopulateOptions{RODType: 0x00010000}, at(0, 8))
		refused(t, a, err, 0x5, 0x26, 0x00)
	})
	t.Run("offset at the end of the ROD", func(t *testing.T) {
		a, err := d.WriteUsingToken(token, tokenclient.WriteTokenOptions{Offset: 100}, at(0, 1))
		refused(t, a, err, 0x5, 0x26, 0x00)
	})
	t.Run("no list", func(t *testing.T) {
		for _, action := range []byte{0x10, 0x11} {
			a, err := d.Command([]byte{0x83, action, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0}, nil, 0)
			good(t, a, err)
		}
	})
	t.Run("short list", func(t *testing.T) {
		for _, action := range []byte{0x10, 0x11} {
			a, err := d.Command([]byte{0x83, action, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0}, make([]byte, 8), 0)
			refused(t, a, err, 0x5, 0x1a, 0x00)
		}
	})
	t.Run("more than the ROD has", func(t *testing.T) {
		a, err := d.WriteUsingToken(token, tokenclient.WriteTokenOptions{Offset: 90}, at(2000, 30))
		refused(t, a, err, 0xa, 0x0d, 0x04)
		if !a.Sense.HasInformation || a.Sense.Information != 10 {
			t.Errorf("INFORMATION says %v, ten blocks could be written", a.Sense)
		}
		copy(d.bytes(at(2000, 10)), rod[90*512:])
	})
	t.Run("unknown list identifier", func(t *testing.T) {
		_, a, err := d.TokenInformationOf(0xdeadbeef)
		refused(t, a, err, 0x5, 0x24, 0x00)
	})
	d.verifyAll()
}
