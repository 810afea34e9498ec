package v1

// ConfigChange is a difference of two configurations. Key is its path, with the names of
// the entries of lists, for example "targets[iqn.2026-11.example:disks].luns[7].size";
// Before and After are texts, empty where there is none, and a secret is masked.
// TakesEffect is at_once, new_logins or restart; Why is why a restart is needed.
type ConfigChange struct {
	Key         string `json:"key"`
	Before      string `json:"before,omitempty"`
	After       string `json:"after,omitempty"`
	TakesEffect string `json:"takes_effect"`
	Why         string `json:"why,omitempty"`
}

// Compared is the response of POST /v1/config/compare.
type Compared struct {
	Changes []ConfigChange `json:"changes"`
}

// Reloaded is the response of what changes the configuration: what has changed.
type Reloaded struct {
	Changes          []ConfigChange `json:"changes"`
	Warnings         []string       `json:"warnings,omitempty"`
	TargetsAdded     []string       `json:"targets_added,omitempty"`
	TargetsRemoved   []string       `json:"targets_removed,omitempty"`
	LUNsAdded        []LUNName      `json:"luns_added,omitempty"`
	LUNsRemoved      []LUNName      `json:"luns_removed,omitempty"`
	LogoutsRequested int            `json:"logouts_requested"`
	LUNsAborted      int            `json:"luns_aborted"`
	Seconds          float64        `json:"duration_seconds"`
	LockSeconds      float64        `json:"longest_lock_seconds"`
	// FileOnly: no server runs, and only the file has changed.
	FileOnly bool `json:"file_only,omitempty"`
}

// LUNName names a LUN of the configuration, and what its blocks are stored on.
type LUNName struct {
	Target string `json:"target"`
	Number uint16 `json:"lun"`
	Medium string `json:"medium"`
}

// Problem is an error in a configuration. Line is 0 and Key empty where there is none.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}
