package extent

// Distrust makes Pin refuse an extent, whose data was found damaged: it loses
// its fingerprint. It does nothing when there is no such extent.
func (t *Table) Distrust(id ID) error {
	return t.doubt(id, func(*page, int) {})
}

// Condemn is Distrust for an extent whose data matches its checksums and is
// wrong all the same: the checksums are changed, so that no read takes it.
func (t *Table) Condemn(id ID) error {
	return t.doubt(id, func(p *page, i int) {
		for k := range p.crc(i) {
			p.crc(i)[k] ^= 1<<32 - 1
		}
	})
}

// doubt takes the fingerprint of entry i of a page, if it has one, and does what
// else there is to do.
func (t *Table) doubt(id ID, also func(p *page, i int)) error {
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
