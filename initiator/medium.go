package initiator

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
)

// WriteCache is what a logical unit says of writes and its cache (SBC-3 6.5.5).
type WriteCache struct {
	// Volatile: a write is durable only after SYNCHRONIZE CACHE, or with FUA.
	Volatile bool
	// FUA: WRITE takes the bit.
	FUA bool
	// Protected: the logical unit takes no writes (WP).
	Protected bool
}

const (
	pageCaching    = 0x08
	cacheWCE       = 0x04 // byte 2 of the page
	deviceDPOFUA   = 0x10 // the device-specific parameter of a disk
	deviceWP       = 0x80
	writeFUA       = 0x08 // byte 1 of WRITE(16)
	modeHeaderSize = 4
)

// WriteCache reads the caching mode page. A logical unit that does not have it is taken for one
// with a volatile cache.
func (d *Disk) WriteCache(ctx context.Context) (WriteCache, error) {
	p := make([]byte, 192)
	c := Command{CDB: []byte{0x1a, 0x08, pageCaching, 0, byte(len(p)), 0}, In: p} // MODE SENSE(6), DBD
	err := d.do(ctx, &c)
	if refusal(err) != nil {
		return WriteCache{Volatile: true}, nil
	}
	if err != nil {
		return WriteCache{}, fmt.Errorf("MODE SENSE: %w", err)
	}
	return parseWriteCache(p[:c.Received]), nil
}

// parseWriteCache reads the answer to MODE SENSE(6).
func parseWriteCache(p []byte) WriteCache {
	w := WriteCache{Volatile: true}
	if len(p) < modeHeaderSize {
		return w
	}
	w.FUA, w.Protected = p[2]&deviceDPOFUA != 0, p[2]&deviceWP != 0
	if page := p[min(len(p), modeHeaderSize+int(p[3])):]; len(page) >= 3 && page[0]&0x7f == pageCaching {
		w.Volatile = page[2]&cacheWCE != 0
	}
	return w
}

// WriteThrough writes p at off with FUA: what it has written is durable.
func (d *Disk) WriteThrough(ctx context.Context, p []byte, off int64) error {
	return d.write(ctx, p, off, writeFUA)
}

// Ready sends TEST UNIT READY.
func (d *Disk) Ready(ctx context.Context) error {
	return d.do(ctx, &Command{CDB: make([]byte, 6)})
}

// Drop ends the session without a logout; commands that still run fail.
func (d *Disk) Drop() { _ = d.session.end() } // the connection is of no use, whatever Close says

// Ended is closed once the session has ended, for whatever reason.
func (d *Disk) Ended() <-chan struct{} { return d.session.ended }

// OnAttention has fn be called with each unit attention, before the command that it has ended
// is repeated; an error of fn is that of the command. It must not be called while commands run.
func (d *Disk) OnAttention(fn func(*SenseError) error) { d.attention = fn }

// Identity returns what tells the logical unit from all others, in words of Linux: naa. or
// eui. and hexadecimal digits, or t10. and text.
func (d *Disk) Identity(ctx context.Context) (string, error) {
	p, err := d.VPD(ctx, 0x83)
	if err != nil {
		return "", err
	}
	if id := parseIdentity(p); id != "" {
		return id, nil
	}
	return "", errors.New("VPD page 83h: the logical unit has neither an NAA nor an EUI-64 nor a T10 identifier")
}

// parseIdentity looks for the designator of the logical unit in a Device Identification page
// (SPC-4 7.8.6): an NAA identifier rather than an EUI-64, and that rather than a T10 one.
func parseIdentity(page []byte) string {
	const t10, eui, naa = 1, 2, 3
	found := map[byte]string{}
	for p := page[min(4, len(page)):]; len(p) >= 4 && len(p) >= 4+int(p[3]); p = p[4+int(p[3]):] {
		kind, id := p[1]&0x0f, p[4:4+int(p[3])]
		if p[1]&0x30 != 0 || len(id) == 0 || found[kind] != "" { // of a port or of the target
			continue
		}
		switch kind {
		case naa:
			found[kind] = "naa." + hex.EncodeToString(id)
		case eui:
			found[kind] = "eui." + hex.EncodeToString(id)
		case t10:
			found[kind] = fmt.Sprintf("t10.%q", id)
		}
	}
	for _, kind := range []byte{naa, eui, t10} {
		if found[kind] != "" {
			return found[kind]
		}
	}
	return ""
}
