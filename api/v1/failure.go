package v1

// Failure is an error response: Kind is for programs, Error for people. Bytes were done
// before it, from the beginning of the range.
type Failure struct {
	Kind  string `json:"kind"`
	Error string `json:"error"`
	Bytes int64  `json:"bytes,omitempty"`
	// Problems are those of a configuration, all of them.
	Problems []Problem `json:"problems,omitempty"`
	// Changes are those of a configuration that need a restart.
	Changes []ConfigChange `json:"changes,omitempty"`
}

// Line is a line of a response with progress: it has one of the three.
type Line[P, R any] struct {
	Progress *P `json:"progress,omitempty"`
	Result   *R `json:"result,omitempty"`
	*Failure
}
