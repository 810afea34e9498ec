package v1

// PeerMove is what the server of a source asks of the destination of a migration, at
// POST /v1/peer/migrations. IDs are in hexadecimal; what does not apply is left out.
type PeerMove struct {
	Op   string `json:"op"`
	Pair string `json:"pair"`
	From string `json:"from"`
	// Name to LUNs say what is to be moved: the name of the pair, the volume of the source, its
	// name at the destination, and what is served from it.
	Name     string     `json:"name,omitempty"`
	Volume   string     `json:"volume,omitempty"`
	To       string     `json:"to,omitempty"`
	Identity string     `json:"identity,omitempty"`
	LUNs     []MovedLUN `json:"luns,omitempty"`

	Epoch          uint64       `json:"epoch"`
	Turn           uint64       `json:"turn,omitempty"`
	BytesPerSecond int64        `json:"bytes_per_second,omitempty"`
	Point          string       `json:"point,omitempty"`
	Units          []UnitRecord `json:"units,omitempty"`
}

// MovedLUN is a LUN of a volume that is moved.
type MovedLUN struct {
	Target      string `json:"target"`
	Number      uint16 `json:"lun"`
	BlockLength int    `json:"block_length"`
	ReadOnly    bool   `json:"read_only,omitempty"`
}

// UnitRecord is what a logical unit keeps: reservations, mode parameters. Era: it outlives
// the process, and no loss of power.
type UnitRecord struct {
	Key   string `json:"key"`
	Era   bool   `json:"era,omitempty"`
	Value []byte `json:"value"`
}

// PeerMoveAnswer is its response. With Refused, a word, the server has done nothing, for the
// reason in Message.
type PeerMoveAnswer struct {
	Refused string `json:"refused,omitempty"`
	Message string `json:"message,omitempty"`
	Role    string `json:"role,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"`
	Common  string `json:"common,omitempty"`
	// Served: the LUNs are served by the server that answers. Problem is why not yet.
	Served  bool   `json:"served,omitempty"`
	Problem string `json:"problem,omitempty"`
	// Running: the round has not ended. TookMS is its duration in milliseconds.
	Running bool            `json:"running,omitempty"`
	TookMS  int64           `json:"took_ms,omitempty"`
	Bytes   ReplicaProgress `json:"bytes"`
}
