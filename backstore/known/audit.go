package known

import (
	"context"
	"fmt"

	"odx/backstore/extent"
	"odx/backstore/meta"
)

// Audit reports stored pages that cannot be decoded, that are of a store with a number that
// was never given out, or that have slots from limit on, which were never allocated. Names of
// extents that are gone are none of them: they stay until a Prune.
func Audit(ctx context.Context, kv meta.Reader, limit extent.Slot, report func(finding string)) error {
	last := uint16(0)
	err := kv.Scan([]byte{StoresPrefix}, func(key, value []byte) error {
		s, err := decodeStores(value)
		if err != nil {
			report(fmt.Sprintf("names of blocks in other stores: %v", err))
		} else {
			last = s.last
		}
		return nil
	})
	if err != nil {
		return err
	}
	return kv.Scan([]byte{PagePrefix}, func(key, value []byte) error {
		id, ok := pageOfKey(key)
		p, err := decodePage(value)
		switch number := uint16(id >> (64 - numberBits)); {
		case !ok || err != nil:
			report(fmt.Sprintf("names of blocks in other stores, page %x: %v", key[1:], err))
			return ctx.Err()
		case number == 0 || number > last:
			report(fmt.Sprintf("names of blocks in other stores, page %x: no store has the number %d", key[1:], number))
		}
		for at, local := range p.local {
			if local >= limit {
				report(fmt.Sprintf("names of blocks in other stores, page %x: slot %d is %d, and was never allocated", key[1:], at, local))
				break
			}
		}
		return ctx.Err()
	})
}
