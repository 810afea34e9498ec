package scsi

// reconfigure changes the configuration of the fixture's target.
func (f *fixture) reconfigure(change func(c *Configuration)) (left []*LogicalUnit) {
	f.t.Helper()
	f.target.mu.Lock()
	c := Configuration{
		Units: f.target.units, PortGroups: f.target.ports, ImplicitOnly: f.target.implicitOnly, Replaced: f.target.replaced,
	}
	f.target.mu.Unlock()
	change(&c)
	left, err := f.target.Reconfigure(c)
	if err != nil {
		f.t.Fatal(err)
	}
	return left
}

// takeAttentions takes the unit attentions of a nexus at all its LUNs.
func (f *fixture) takeAttentions(n *Nexus) {
	for _, itl := range *n.units.Load() {
		for itl.takePending() != nil {
		}
	}
}
