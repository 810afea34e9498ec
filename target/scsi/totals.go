package scsi

// Totals returns LogicalUnit.Stats.Total: the commands of all initiators.
func (lu *LogicalUnit) Totals() Stats {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	total := lu.accounts.departed
	for _, a := range lu.accounts.by {
		total.add(&a.ended)
	}
	for _, itl := range lu.former {
		itl.stats.Load().addTo(&total)
	}
	for _, itl := range lu.nexuses {
		itl.stats.Load().addTo(&total)
	}
	return total
}
