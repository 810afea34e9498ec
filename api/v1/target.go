package v1

// Target is a target of the configuration. Users are those who may log in with CHAP.
type Target struct {
	Name           string   `json:"name"`
	LUNs           []LUN    `json:"luns"`
	Authentication bool     `json:"authentication_required"`
	Users          []User   `json:"users"`
	Access         []Access `json:"access"`
	PortalGroups   []uint16 `json:"portal_groups,omitempty"`
	RedirectTo     string   `json:"redirect_to,omitempty"`
}

// Discovery is the authentication of discovery sessions.
type Discovery struct {
	Authentication bool   `json:"authentication_required"`
	Users          []User `json:"users"`
}

// CreateTarget is the request of POST /v1/targets.
type CreateTarget struct {
	Name         string   `json:"name"`
	LUNs         []LUN    `json:"luns"`
	PortalGroups []uint16 `json:"portal_groups,omitempty"`
}

// LUN is a logical unit of a target, and the request that adds one. One of Volume, File,
// Backing and View is its medium. With SizeBytes a missing medium is created.
type LUN struct {
	Number                uint16 `json:"lun"`
	Volume                string `json:"volume,omitempty"`
	File                  string `json:"file,omitempty"`
	Backing               string `json:"backing,omitempty"`
	View                  string `json:"view,omitempty"`
	SizeBytes             int64  `json:"size_bytes,omitempty"`
	BlockBytes            int    `json:"block_bytes,omitempty"`
	ReadOnly              bool   `json:"read_only,omitempty"`
	StoreDuplicates       bool   `json:"store_duplicates,omitempty"`
	UnmapGranularityBytes int64  `json:"unmap_granularity_bytes,omitempty"`
	Identity              string `json:"identity,omitempty"`
	Limit                 Rate   `json:"limit,omitzero"`
	// Login is for a backing of iscsi://…
	Login *Login `json:"login,omitempty"`
}

// Login is what a LUN of another target is logged in to with (CHAP), and Mutual what that
// target proves itself with. Secrets are in no response.
type Login struct {
	LoginUser
	Mutual *LoginUser `json:"mutual,omitempty"`
}

// LoginUser is a name of CHAP with its secret.
type LoginUser struct {
	Name string `json:"name"`
	SecretSource
}

// Rate is a limit; 0 is none, and a burst of 0 what the rate gives in a tenth of a second.
type Rate struct {
	IOPS           int64 `json:"iops,omitempty"`
	IOPSBurst      int64 `json:"iops_burst,omitempty"`
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	BytesBurst     int64 `json:"bytes_burst,omitempty"`
}

// User is a user of CHAP. Its secret is in no response.
type User struct {
	Name       string   `json:"name"`
	Initiators []string `json:"initiators,omitempty"`
}

// SecretSource is a secret, the path of its file, or the environment variable of the server
// that has it: one of them.
type SecretSource struct {
	Secret     string `json:"secret,omitempty"`
	SecretFile string `json:"secret_file,omitempty"`
	SecretEnv  string `json:"secret_env,omitempty"`
}

// AddUser is the request that adds a user.
type AddUser struct {
	User
	SecretSource
}

// SetUser is the request that changes a user. A secret and Initiators that are not there
// stay; empty Initiators let every initiator use the name.
type SetUser struct {
	Initiators *[]string `json:"initiators,omitempty"`
	SecretSource
}

// Access is an entry of the access list of a target. The first that an initiator matches
// applies. Without LUNs it maps all.
type Access struct {
	Initiators      []string    `json:"initiators,omitempty"`
	Addresses       []string    `json:"addresses,omitempty"`
	LUNs            []MappedLUN `json:"luns,omitempty"`
	ReadOnly        bool        `json:"read_only,omitempty"`
	StoreDuplicates bool        `json:"store_duplicates,omitempty"`
}

// AddAccess is the request that adds an entry; At is how many come before it, by default
// all.
type AddAccess struct {
	Access
	At *int `json:"at,omitempty"`
}

// MappedLUN maps a LUN of a target, to another number if As is there.
type MappedLUN struct {
	LUN      uint16  `json:"lun"`
	As       *uint16 `json:"as,omitempty"`
	ReadOnly bool    `json:"read_only,omitempty"`
}
