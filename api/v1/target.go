package v1

// Target is a target of the configuration. Users are those who may log in with CHAP.
type Target struct {
	Name           string   `json:"name"`
	LUNs           []LUN    `json:"luns"`
	Users          []User   `json:"users"`
	Authentication bool     `json:"authentication_required"`
	Access         []Access `json:"access"`
	PortalGroups   []int    `json:"portal_groups,omitempty"`
	RedirectTo     string   `json:"redirect_to,omitempty"`
}

// LUN is a logical unit of a target, and the request that adds one. One of Volume, File,
// Backing and View is its medium. SizeBytes creates a missing medium.
type LUN struct {
	Number     uint16 `json:"lun"`
	Volume     string `json:"volume,omitempty"`
	File       string `json:"file,omitempty"`
	Backing    string `json:"backing,omitempty"`
	View       string `json:"view,omitempty"`
	SizeBytes  int64  `json:"size_bytes,omitempty"`
	BlockBytes int    `json:"block_bytes,omitempty"`
	ReadOnly   bool   `json:"read_only,omitempty"`
}

// User is a user of a target. Its secret is not in responses.
type User struct {
	Name       string   `json:"name"`
	Initiators []string `json:"initiators,omitempty"`
}

// SetUser is the request that creates a user, or replaces it. One of SecretFile and
// Secret is its secret; without both an existing one stays.
type SetUser struct {
	SecretFile string   `json:"secret_file,omitempty"`
	Secret     string   `json:"secret,omitempty"`
	Initiators []string `json:"initiators,omitempty"`
}

// Access is an entry of the access list of a target, and the request that adds one. The
// first that an initiator matches applies.
type Access struct {
	Initiators []string    `json:"initiators,omitempty"`
	Addresses  []string    `json:"addresses,omitempty"`
	LUNs       []MappedLUN `json:"luns,omitempty"`
	ReadOnly   bool        `json:"read_only,omitempty"`
}

// MappedLUN is a LUN that an entry of an access list gives, under another number if As is
// there.
type MappedLUN struct {
	LUN      uint16  `json:"lun"`
	As       *uint16 `json:"as,omitempty"`
	ReadOnly bool    `json:"read_only,omitempty"`
}

// CreateTarget is the request of POST /v1/targets.
type CreateTarget struct {
	Name string `json:"name"`
	LUNs []LUN  `json:"luns,omitempty"`
}
