package extent

// ClearFingerprint removes the fingerprint of an extent with damaged data, so that Pin
// refuses it. It does nothing if the extent does not exist or has no fingerprint.
func (t *Table) ClearFingerprint(id ID) error {
	return t.clearFingerprint(id, func(*page, int) {})
}

// Condemn is ClearFingerprint for an extent whose data matches its checksums but not
// its fingerprint. It also inverts the checksums, so that every read of the extent
// fails.
func (t *Table) Condemn(id ID) error {
	return t.clearFingerprint(id, func(p *page, i int) {
		for k := range p.crc(i) {
			p.crc(i)[k] ^= 1<<32 - 1
		}
	})
}

// clearFingerprint removes the fingerprint of an extent and calls also with its page,
// locked, and its index in the page.
func (t *Table) clearFingerprint(id ID, also func(p *page, i int)) error {
	p, err := t.cache.Lock(uint64(id) / pageExtents)
	if err != nil {
		return err
	}
	defer p.Unlock()
	i := int(uint64(id) % pageExtents)
	if e := &p.entries[i]; e.blocks != 0 && e.fp != (Fingerprint{}) {
		t.cache.Change(p)
		e.fp = Fingerprint{}
		also(p, i)
	}
	return nil
}
