package iscsi

// Counts is what initiators hold of a target.
type Counts struct {
	Sessions, Connections int
	// Commands is the number of outstanding commands.
	Commands int
}

// Counts returns what there is for each target with a session; discovery sessions are those
// of "".
func (srv *Server) Counts() map[string]Counts {
	by := map[string]Counts{}
	for _, s := range srv.allSessions() {
		s.mu.Lock()
		c := by[s.id.TargetName]
		c.Sessions++
		c.Connections += len(s.conns)
		c.Commands += len(s.tasks)
		by[s.id.TargetName] = c
		s.mu.Unlock()
	}
	return by
}
