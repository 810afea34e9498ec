package v1

// ConfigChange is a difference of two configurations. Key is its path, with the names of
// the entries of lists, for example "targets[iqn.2026-11.example:disks].luns[7].size";
// Before and After are texts, empty where there is none, and a secret is masked.
// TakesEffect is at_once, new_logins or restart; Why says why a restart is needed.
type ConfigChange struct {
	Key         string `json:"key"`
	Before      string `json:"before,omitempty"`
	After       string `json:"after,omitempty"`
	TakesEffect string `json:"takes_effect"`
	Why         string `json:"why,omitempty"`
}

// Reloaded is the response of what changes the configuration: what a reload has changed.
// LUNs are "TARGET/LUN".
type Reloaded struct {
	Changes           []ConfigChange `json:"changes"`
	TargetsAdded      []string       `json:"targets_added,omitempty"`
	TargetsRemoved    []string       `json:"targets_removed,omitempty"`
	LUNsAdded         []string       `json:"luns_added,omitempty"`
	LUNsRemoved       []string       `json:"luns_removed,omitempty"`
	SessionsLoggedOut int            `json:"sessions_logged_out"`
	Seconds           float64        `json:"duration_seconds"`
	LockSeconds       float64        `json:"longest_lock_seconds"`
}

// Problem is an error in a configuration. Line is 0 and Key empty where there is none.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}
